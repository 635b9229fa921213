package gpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

var card = regexp.MustCompile(`^card[0-9]+$`) // and not card0-DP-1, which is a plug of it

// cards returns the directories of the graphics cards of a maker, by the maker's
// number on the bus.
func cards(root, vendor string) ([]string, error) {
	all := filepath.Join(root, "sys", "class", "drm")
	entries, err := os.ReadDir(all)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list graphics cards: %w", err)
	}
	var found []string
	for _, e := range entries {
		dir := filepath.Join(all, e.Name(), "device")
		if card.MatchString(e.Name()) && readLine(dir, "vendor") == vendor {
			found = append(found, dir)
		}
	}
	return found, nil
}

// uevent returns what the kernel says of a device under a key, "" for nothing.
func uevent(dir, key string) string {
	for line := range strings.Lines(readText(dir, "uevent")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return value
		}
	}
	return ""
}

// readSensors reads what the sensors of a card say; nil is what it has none for.
// Watts are of a file of microwatts, averaged where the card does that.
func readSensors(dir string) (celsius, watts *int) {
	hwmons, _ := filepath.Glob(filepath.Join(dir, "hwmon", "hwmon*")) // the pattern is good
	for _, h := range hwmons {
		for _, file := range []string{"temp1_input", "temp2_input"} { // amdgpu and i915; xe
			if celsius == nil {
				celsius = milli(h, file)
			}
		}
		for _, file := range []string{"power1_average", "power1_input"} {
			if n, ok := number(h, file); ok && n >= 0 && watts == nil {
				watts = new(int((n + 500_000) / 1_000_000))
			}
		}
	}
	return celsius, watts
}

// milli returns a thousandth of the number in a file, rounded; nil for none.
func milli(dir, file string) *int {
	n, ok := number(dir, file)
	if !ok {
		return nil
	}
	if n < 0 {
		return new(int((n - 500) / 1000))
	}
	return new(int((n + 500) / 1000))
}

// percent returns n, or nil where that's no percentage.
func percent(n int) *int {
	if n < 0 || n > 100 {
		return nil
	}
	return &n
}

// number returns the number in a file. It's bounded to where sums of two don't
// overflow.
func number(dir, file string) (int64, bool) {
	n, err := strconv.ParseInt(readLine(dir, file), 10, 60)
	return n, err == nil
}

func amount(dir, file string) schemas.Amount {
	n, err := strconv.ParseUint(readLine(dir, file), 10, 63)
	if err != nil {
		return schemas.Amount{}
	}
	return schemas.Known(schemas.Bytes(n))
}

func readLine(dir, file string) string { return strings.TrimSpace(readText(dir, file)) }

// readText returns the text of a file, and "" where it can't be read: what a device
// doesn't tell is unknown.
func readText(dir, file string) string {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return string(text)
}
