package providers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// maxEvent is the longest event or line that is taken from a server, in bytes.
const maxEvent = 64 << 20

var errTooLong = errors.New("a single event is longer than 64 MiB")

// A lineReader reads lines of any length up to maxEvent from a bufio.Reader.
type lineReader struct {
	r    *bufio.Reader
	long []byte // holds lines that the buffer is too small for
}

// line returns the next line without its end, LF or CRLF, with U+FFFD in place of
// what is not UTF-8. It is valid until the next call. The last line needs no end;
// after it comes io.EOF.
func (l *lineReader) line() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(l.long)+len(b) > maxEvent {
				return nil, errTooLong
			}
			l.long = append(l.long, b...)
			b, err = l.r.ReadSlice('\n')
		}
		l.long = append(l.long, b...)
		b = l.long
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(b) == 0) {
		return nil, err
	}
	return validUTF8(trimEnd(b)), nil
}

// validUTF8 keeps the promise that a chunk is JSON.
func validUTF8(line []byte) []byte {
	if utf8.Valid(line) {
		return line
	}
	return bytes.ToValidUTF8(line, []byte("\uFFFD"))
}

func trimEnd(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// A strayLine is a line that is no part of an event stream: model servers and
// proxies write their errors like that, in the middle of a stream.
type strayLine struct{ text []byte }

func (e *strayLine) Error() string {
	return fmt.Sprintf("unexpected text in the stream: %.200q", e.text)
}

// A sseReader reads the data of server-sent events.
type sseReader struct {
	lines lineReader
	multi []byte // holds data of more than one line
	begun bool
}

// next returns the data of the next event, valid until the next call. Comments,
// names and ids of events are skipped. It returns io.EOF after the last event,
// and a *strayLine for text that is no event.
func (s *sseReader) next() ([]byte, error) {
	for {
		line, err := s.lines.line()
		if err != nil {
			return nil, err
		}
		if !s.begun {
			s.begun = true
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		data, ok, err := field(line)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			continue
		case s.blankFollows():
			return data, nil
		default:
			return s.collect(data)
		}
	}
}

// field returns the data that a line holds, or false where it holds none.
func field(line []byte) ([]byte, bool, error) {
	name, data, _ := bytes.Cut(line, []byte(":"))
	switch string(name) {
	case "data":
		return bytes.TrimPrefix(data, []byte(" ")), true, nil
	case "", "event", "id", "retry": // "" is a comment, or the end of an event
		return nil, false, nil
	default:
		return nil, false, &strayLine{bytes.Clone(line)}
	}
}

// blankFollows takes the blank line that ends an event, if it has been received
// already. It does not touch the buffer otherwise, so the event's data stays
// where it is.
func (s *sseReader) blankFollows() bool {
	n := min(s.lines.r.Buffered(), 2)
	ahead, _ := s.lines.r.Peek(n) // that much is there: no error
	switch {
	case n >= 1 && ahead[0] == '\n':
		n = 1
	case n == 2 && string(ahead) == "\r\n":
	default:
		return false
	}
	_, err := s.lines.r.Discard(n)
	return err == nil
}

// collect reads the rest of an event that begins with data.
func (s *sseReader) collect(data []byte) ([]byte, error) {
	s.multi = append(s.multi[:0], data...)
	for {
		line, err := s.lines.line()
		if errors.Is(err, io.EOF) || err == nil && len(line) == 0 {
			return s.multi, nil
		}
		if err != nil {
			return nil, err
		}
		more, ok, err := field(line)
		if err != nil {
			return nil, err
		}
		if ok {
			if len(s.multi)+len(more) > maxEvent {
				return nil, errTooLong
			}
			s.multi = append(slices.Grow(s.multi, len(more)+1), '\n')
			s.multi = append(s.multi, more...)
		}
	}
}
