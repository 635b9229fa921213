package providers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

const (
	preludeSize = 12      // of a frame: its length, its headers' length, a sum of both
	minFrame    = 4 + 12  // the prelude, and the sum of all that stands before it
	stringValue = byte(7) // the type of a header that is a string
)

var errFrame = errors.New("a frame of the stream is damaged")

// headerSizes are how long the values of headers are, by type; -1: they begin with
// two bytes that say it.
var headerSizes = [...]int{0, 0, 1, 2, 4, 8, -1, -1, 8, 16}

// A frame is one message of AWS's event streams (application/vnd.amazon.eventstream).
// It is valid until the next is read.
type frame struct {
	kind    []byte // "event", "exception" or "error"
	name    []byte // of the event or the exception, or the code of the error
	message []byte // of an error
	payload []byte
}

// A frameReader reads frames. It is written by hand, as AWS's own decoder reads
// through four layers of readers, keeps nothing for the next frame and takes any
// length that a frame claims to have.
type frameReader struct {
	r     *bufio.Reader
	taken int    // bytes of the newest frame that are still in the buffer
	long  []byte // holds frames that the buffer is too small for
}

// next returns the next frame. It returns io.EOF after the last one, and a
// *strayLine for text where a frame should begin: no frame is so long that it
// begins with a letter.
func (f *frameReader) next() (frame, error) {
	if _, err := f.r.Discard(f.taken); err != nil {
		return frame{}, err
	}
	f.taken = 0
	first, err := f.r.Peek(1)
	if err != nil {
		return frame{}, err
	}
	if first[0] > maxEvent>>24 {
		text, err := io.ReadAll(io.LimitReader(f.r, maxFailure))
		if err != nil {
			return frame{}, err
		}
		return frame{}, &strayLine{text}
	}
	prelude, err := f.r.Peek(preludeSize)
	if err != nil {
		return frame{}, cutShort(err)
	}
	size, headers := int64(binary.BigEndian.Uint32(prelude)), int64(binary.BigEndian.Uint32(prelude[4:]))
	if !sums(prelude) || size > maxEvent || size < minFrame+headers {
		return frame{}, errFrame
	}
	b, err := f.take(int(size))
	if err != nil {
		return frame{}, cutShort(err)
	}
	if !sums(b) {
		return frame{}, errFrame
	}
	out := frame{payload: validUTF8(b[preludeSize+headers : size-4])}
	if !out.read(b[preludeSize : preludeSize+headers]) {
		return frame{}, errFrame
	}
	return out, nil
}

// take returns the next n bytes.
func (f *frameReader) take(n int) ([]byte, error) {
	if n <= f.r.Size() {
		f.taken = n
		return f.r.Peek(n)
	}
	if cap(f.long) < n {
		f.long = make([]byte, n)
	}
	f.long = f.long[:n]
	_, err := io.ReadFull(f.r, f.long)
	return f.long, err
}

// cutShort says that an end comes too early.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func sum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// sums reports whether the last four bytes are the sum of the others.
func sums(b []byte) bool {
	n := len(b) - 4
	return sum(b[:n]) == binary.BigEndian.Uint32(b[n:])
}

// read takes what is needed of the headers, and reports whether they are well
// formed.
func (f *frame) read(headers []byte) bool {
	for len(headers) > 0 {
		n := 1 + int(headers[0])
		if len(headers) <= n || int(headers[n]) >= len(headerSizes) {
			return false
		}
		name, kind, value := headers[1:n], headers[n], headers[n+1:]
		size := headerSizes[kind]
		if size < 0 {
			if len(value) < 2 {
				return false
			}
			size = int(binary.BigEndian.Uint16(value))
			value = value[2:]
		}
		if len(value) < size {
			return false
		}
		headers, value = value[size:], value[:size]
		if kind == stringValue {
			f.set(name, value)
		}
	}
	return true
}

func (f *frame) set(name, value []byte) {
	switch string(name) {
	case ":message-type":
		f.kind = value
	case ":event-type", ":exception-type", ":error-code":
		f.name = value
	case ":error-message":
		f.message = value
	}
}
