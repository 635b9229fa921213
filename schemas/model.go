package schemas

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxModelBytes is the longest model name, in bytes, before it is escaped.
const MaxModelBytes = 200

const hexDigits = "0123456789ABCDEF"

// EscapeModel returns the subject tail of a model name: the name verbatim, but
// with %XX for every byte that cannot stand in a subject (whitespace, control
// characters and 0x7f, '*', '>', bytes that are not UTF-8, a dot that would make
// an empty token, a '$' in front) and for '%' itself.
//
// It returns an error for the empty name and for one over MaxModelBytes.
func EscapeModel(name string) (string, error) {
	if name == "" {
		return "", errors.New("the model name is empty")
	}
	if len(name) > MaxModelBytes {
		return "", fmt.Errorf("the model name is %d bytes long, over the limit of %d", len(name), MaxModelBytes)
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if plainRune(r, size) && !emptyToken(name, i) && (i > 0 || r != '$') {
			b.WriteString(name[i : i+size])
		} else {
			for _, c := range []byte(name[i : i+size]) {
				b.WriteByte('%')
				b.WriteByte(hexDigits[c>>4])
				b.WriteByte(hexDigits[c&15])
			}
		}
		i += size
	}
	return b.String(), nil
}

// plainRune reports whether r may stand in a subject tail as it is. U+FFFD may
// not: the server's JSON shows it in place of any byte that is not UTF-8.
func plainRune(r rune, size int) bool {
	switch {
	case r == utf8.RuneError, r == '*', r == '>', r == '%':
		return false
	case size == 1:
		return r > 0x20 && r != 0x7f
	default:
		return !unicode.IsSpace(r) && !unicode.IsControl(r)
	}
}

// emptyToken reports whether the byte at i is a dot that starts, ends or doubles.
func emptyToken(name string, i int) bool {
	return name[i] == '.' && (i == 0 || i == len(name)-1 || name[i-1] == '.')
}

// UnescapeModel returns the model name that a subject tail stands for, or an
// error that says why the tail cannot be one.
func UnescapeModel(tail string) (string, error) {
	if tail == "" {
		return "", errors.New("the subject names no model")
	}
	if tail[0] == '$' {
		return "", errors.New("the model name begins with '$': write it as %24")
	}
	if !strings.Contains(tail, "%") {
		return tail, checkTail(tail)
	}
	name := make([]byte, 0, len(tail))
	plain := make([]byte, 0, len(tail)) // the tail with a letter in place of each escape
	for i := 0; i < len(tail); i++ {
		if tail[i] != '%' {
			name, plain = append(name, tail[i]), append(plain, tail[i])
			continue
		}
		if i+2 >= len(tail) || unhex(tail[i+1]) < 0 || unhex(tail[i+2]) < 0 {
			return "", errors.New("the model name has a '%' that no two hexadecimal digits follow: write it as %25")
		}
		name, plain = append(name, byte(unhex(tail[i+1])<<4|unhex(tail[i+2]))), append(plain, 'x')
		i += 2
	}
	if err := checkTail(string(plain)); err != nil {
		return "", err
	}
	return string(name), nil
}

// checkTail checks a tail without escapes.
func checkTail(tail string) error {
	if len(tail) > MaxModelBytes {
		return fmt.Errorf("the model name is %d bytes long, over the limit of %d", len(tail), MaxModelBytes)
	}
	for i := 0; i < len(tail); {
		r, size := utf8.DecodeRuneInString(tail[i:])
		if !plainRune(r, size) {
			return fmt.Errorf("the model name has %q, which a subject cannot carry: write its bytes as %%XX", tail[i:i+size])
		}
		if emptyToken(tail, i) {
			return errors.New("the model name has a dot that starts, ends or doubles: write it as %2E")
		}
		i += size
	}
	return nil
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	if i := strings.IndexByte("0123456789abcdef", c); i >= 0 {
		return i
	}
	return strings.IndexByte(hexDigits, c)
}
