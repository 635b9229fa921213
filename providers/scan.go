package providers

// maxDepth is how deep JSON may nest. encoding/json has the same limit.
const maxDepth = 10000

// A scanner walks over JSON text and hands out its parts as they stand there:
// nothing is decoded and nothing is copied. It accepts exactly what
// encoding/json accepts; after the first fault bad is set and stays so.
type scanner struct {
	b     []byte
	i     int
	depth int
	bad   bool
}

// fail marks the text as bad and moves to its end, so that loops over it stop.
func (s *scanner) fail() {
	s.bad = true
	s.i = len(s.b)
}

// peek returns the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// take moves over c, which must come next.
func (s *scanner) take(c byte) bool {
	if s.bad || s.peek() != c {
		s.fail()
		return false
	}
	s.i++
	return true
}

// enter moves into an object or an array: open is '{' or '['.
func (s *scanner) enter(open byte) {
	s.depth++
	if s.depth > maxDepth {
		s.fail()
	}
	s.take(open)
}

// key moves to the next member of an object and returns its raw name. At the end
// of the object it leaves it and returns false.
func (s *scanner) key() ([]byte, bool) {
	if !s.element('{', '}') {
		return nil, false
	}
	k := s.str()
	return k, s.take(':')
}

// element moves to the next element of what open began, and past close at its
// end.
func (s *scanner) element(open, closing byte) bool {
	if s.bad {
		return false
	}
	first := s.i > 0 && s.b[s.i-1] == open
	switch c := s.peek(); {
	case c == closing:
		s.i++
		s.depth--
		return false
	case first && c != 0:
		return true
	case c == ',':
		s.i++
		if c := s.peek(); c != closing && c != ']' && c != '}' {
			return true
		}
	}
	s.fail()
	return false
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str moves over a string and returns what stands between its quotes, escapes
// and all.
func (s *scanner) str() []byte {
	if !s.take('"') {
		return nil
	}
	b, i := s.b, s.i
	for i < len(b) {
		switch c := b[i]; {
		case plain[c]:
			i++
		case c == '"':
			raw := b[s.i:i]
			s.i = i + 1
			return raw
		case c == '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				s.fail()
				return nil
			}
			i += n
		default:
			s.fail()
			return nil
		}
	}
	s.fail()
	return nil
}

// escapeLen returns how long the escape is that b begins with, 0 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	default:
		return 0
	}
}

// value moves over any value and returns its text.
func (s *scanner) value() []byte {
	c := s.peek()
	start := s.i
	switch c {
	case '"':
		s.str()
	case '{':
		s.enter('{')
		for {
			if _, ok := s.key(); !ok {
				break
			}
			s.value()
		}
	case '[':
		s.enter('[')
		for s.element('[', ']') {
			s.value()
		}
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
	if s.bad {
		return nil
	}
	return s.b[start:s.i]
}

func (s *scanner) literal(word string) {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		s.fail()
		return
	}
	s.i += len(word)
}

func (s *scanner) number() {
	if s.i < len(s.b) && s.b[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.b) && s.b[s.i] == '0' {
		s.i++
	} else if !s.digits() {
		return
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !s.digits() {
			return
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		s.digits()
	}
}

// digits moves over at least one digit.
func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	if s.i == start {
		s.fail()
	}
	return !s.bad
}

// end reports whether the whole text was walked over and is good.
func (s *scanner) end() bool {
	return !s.bad && s.peek() == 0 && s.i == len(s.b)
}

// atoi reads a whole number that is not negative. What is none is -1.
func atoi(raw []byte) int {
	if len(raw) == 0 || len(raw) > 15 {
		return -1
	}
	n := 0
	for _, c := range raw {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
