package estimate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds of a header, far above those of real files. The parser takes what a file
// claims at its word as long as the file is as large, and model files are: so nothing
// is given to it that is beyond them.
const (
	maxHeader  = 512 << 20 // bytes; of large vocabularies it's 10 MiB
	maxTensors = 1 << 17
	maxKeys    = 1 << 14
	maxString  = 1 << 20 // bytes; a chat template has 20 KiB
	maxNumbers = 1 << 24 // in a list
	maxDepth   = 4       // of lists of lists
)

// The types of values in a GGUF header, from GGUF's specification.
const (
	typeString = 8
	typeArray  = 9
)

// typeSizes are the sizes of values by type; 0: they have lengths of their own.
var typeSizes = [...]int64{1, 1, 2, 2, 4, 4, 4, 1, typeString: 0, typeArray: 0, 8, 8, 8}

// magic is how a GGUF file begins.
const magic = "GGUF"

// errNotGGUF says that a file is something else.
var errNotGGUF = errors.New("it is not a GGUF file")

// A walker reads a header and keeps nothing of it but what was wrong first.
type walker struct {
	from *bufio.Reader
	left int64 // bytes that the header may still have
	err  error
}

// checkHeader reads the header of a GGUF file, and returns why it can't be one.
func checkHeader(from io.Reader) error {
	w := &walker{from: bufio.NewReaderSize(from, 64<<10), left: maxHeader}
	begin := w.bytes(int64(len(magic)))
	if w.err != nil || string(begin) != magic {
		return errNotGGUF
	}
	if version := w.uint32(); w.err == nil && version != 2 && version != 3 {
		return fmt.Errorf("its GGUF version is %d: want 2 or 3", version)
	}
	tensors, keys := w.count("tensors", maxTensors), w.count("keys", maxKeys)
	for i := uint64(0); i < keys && w.err == nil; i++ {
		key := w.string("a key")
		w.value(w.uint32(), key == "split.tensors.count", 0)
	}
	for i := uint64(0); i < tensors && w.err == nil; i++ {
		w.string("a tensor's name")
		dims := w.uint32()
		if w.err == nil && (dims < 1 || dims > 4) { // GGML_MAX_DIMS
			w.fail("a tensor with %d dimensions", dims)
		}
		w.skip(int64(dims)*8 + 4 + 8) // their sizes, its type and its offset
	}
	if errors.Is(w.err, io.EOF) || errors.Is(w.err, io.ErrUnexpectedEOF) {
		return errors.New("it ends in the middle of its header")
	}
	return w.err
}

func (w *walker) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("its header claims "+format, args...)
	}
}

// take counts n bytes of the header, and reports whether it may have them.
func (w *walker) take(n int64) bool {
	if w.err == nil && n > w.left {
		w.fail("more than %d MiB", maxHeader>>20)
	}
	w.left -= n
	return w.err == nil
}

func (w *walker) skip(n int64) {
	if w.take(n) {
		_, w.err = w.from.Discard(int(n))
	}
}

func (w *walker) bytes(n int64) []byte {
	if !w.take(n) {
		return nil
	}
	b := make([]byte, n)
	_, w.err = io.ReadFull(w.from, b)
	return b
}

func (w *walker) uint32() uint32 {
	if b := w.bytes(4); w.err == nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// count reads a number of something.
func (w *walker) count(what string, most uint64) uint64 {
	b := w.bytes(8)
	if w.err != nil {
		return 0
	}
	n := binary.LittleEndian.Uint64(b)
	if n > most {
		w.fail("%d %s", n, what)
		return 0
	}
	return n
}

// string reads a short text.
func (w *walker) string(what string) string {
	return string(w.bytes(int64(w.count("bytes in "+what, maxString))))
}

// value passes over a value. One that is to be small is a count that the parser makes
// room for.
func (w *walker) value(kind uint32, isCount bool, depth int) {
	switch {
	case w.err != nil:
	case int(kind) >= len(typeSizes):
		w.fail("a value of the type %d", kind)
	case isCount && kind != typeArray && kind != typeString:
		b := w.bytes(typeSizes[kind])
		for i := 2; i < len(b); i++ { // tensors of a split model: fewer than 65,536
			if b[i] != 0 {
				w.fail("too many tensors in its parts")
			}
		}
	case kind == typeString:
		w.skip(int64(w.count("bytes in a string", maxString)))
	case kind == typeArray:
		of, n := w.uint32(), w.count("values in a list", maxNumbers)
		if depth == maxDepth {
			w.fail("lists of lists of lists")
		}
		if w.err == nil && int(of) < len(typeSizes) && typeSizes[of] > 0 {
			w.skip(int64(n) * typeSizes[of])
			return
		}
		for i := uint64(0); i < n && w.err == nil; i++ {
			w.value(of, false, depth+1)
		}
	default:
		w.skip(typeSizes[kind])
	}
}
