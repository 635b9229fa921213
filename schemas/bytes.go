package schemas

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes is an amount of memory, in bytes. Memory is never passed around as a
// bare integer, so a MiB figure can't be added to a byte figure by accident.
type Bytes uint64

// Units of Bytes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// String returns b as operators read it: "21.3 GiB", "512.0 MiB", "17 B".
func (b Bytes) String() string {
	for _, u := range []struct {
		unit Bytes
		name string
	}{{GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if b >= u.unit {
			return strconv.FormatFloat(float64(b)/float64(u.unit), 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatUint(uint64(b), 10) + " B"
}

// Minus returns b-c, or 0 where c is larger: free memory never goes negative.
func (b Bytes) Minus(c Bytes) Bytes { return b - min(b, c) }

// ParseBytes reads "44GiB", "44 GiB", "512MiB", "100KiB" or a plain number of
// bytes. Decimal fractions are allowed before a unit.
func ParseBytes(s string) (Bytes, error) {
	num, unit := strings.TrimSpace(s), Bytes(1)
	for name, u := range map[string]Bytes{"KiB": KiB, "MiB": MiB, "GiB": GiB} {
		if n, ok := strings.CutSuffix(num, name); ok {
			num, unit = strings.TrimSpace(n), u
			break
		}
	}
	if unit == 1 {
		n, err := strconv.ParseUint(num, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not an amount of memory: want bytes, or a number with KiB, MiB or GiB", s)
		}
		return Bytes(n), nil
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || strings.Trim(num, "0123456789.") != "" || f*float64(unit) >= 1<<63 {
		return 0, fmt.Errorf("%q is not an amount of memory: want bytes, or a number with KiB, MiB or GiB", s)
	}
	return Bytes(f * float64(unit)), nil
}

// Amount is an amount of memory that may be unknown. The zero Amount is unknown,
// and travels as null: unknown is never 0.
type Amount struct {
	Bytes Bytes
	Known bool
}

// Known returns b as a known Amount.
func Known(b Bytes) Amount { return Amount{Bytes: b, Known: true} }

// String returns the amount as operators read it, "unknown" where it is.
func (a Amount) String() string {
	if !a.Known {
		return "unknown"
	}
	return a.Bytes.String()
}

// SafetyMargin is the memory of a device with so much in total that no plan
// touches: 5 %, and 512 MiB at least, for what estimates miss and drivers take.
func SafetyMargin(total Amount) Bytes { return max(512*MiB, total.Bytes/20) }

// MarshalJSON writes the number of bytes, or null.
func (a Amount) MarshalJSON() ([]byte, error) {
	if !a.Known {
		return []byte("null"), nil
	}
	return strconv.AppendUint(nil, uint64(a.Bytes), 10), nil
}

// UnmarshalJSON reads a number of bytes, or null.
func (a *Amount) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*a = Amount{}
		return nil
	}
	n, err := strconv.ParseUint(string(data), 10, 64) // as encoding/json reads an uint64, which would check the text once more
	if err != nil {
		return fmt.Errorf("amount of memory: %w", err)
	}
	*a = Known(Bytes(n))
	return nil
}
