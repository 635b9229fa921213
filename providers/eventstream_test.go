package providers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

// awsFrame returns a frame as AWS's own encoder writes it, with a header of every
// type before those that count.
func awsFrame(tb testing.TB, kind, name string, payload []byte) []byte {
	tb.Helper()
	var m eventstream.Message
	m.Headers.Set("t", eventstream.BoolValue(true))
	m.Headers.Set("f", eventstream.BoolValue(false))
	m.Headers.Set("i8", eventstream.Int8Value(1))
	m.Headers.Set("i16", eventstream.Int16Value(2))
	m.Headers.Set("i32", eventstream.Int32Value(3))
	m.Headers.Set("i64", eventstream.Int64Value(4))
	m.Headers.Set("b", eventstream.BytesValue([]byte(":event-type")))
	m.Headers.Set("s", eventstream.StringValue(""))
	m.Headers.Set("ts", eventstream.TimestampValue(time.Unix(5, 0)))
	m.Headers.Set("id", eventstream.UUIDValue{6})
	m.Headers.Set(":"+kind+"-type", eventstream.StringValue(name))
	m.Headers.Set(":message-type", eventstream.StringValue(kind))
	m.Payload = payload
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestFrames(t *testing.T) {
	long := strings.Repeat("x", 3*readerSize)
	var stream []byte
	want := []struct{ kind, name, payload string }{
		{"event", "a", `{"a":1}`},
		{"event", "b", ""},
		{"event", "c", long},
		{"event", "d", `{"d":1}`},
		{"exception", "e", `{"e":1}`},
	}
	for _, w := range want {
		stream = append(stream, awsFrame(t, w.kind, w.name, []byte(w.payload))...)
	}
	frames := frameReader{r: bufio.NewReaderSize(bytes.NewReader(stream), readerSize)}
	for _, w := range want {
		f, err := frames.next()
		if err != nil || string(f.kind) != w.kind || string(f.name) != w.name || string(f.payload) != w.payload {
			t.Errorf("%s: %q %q %.40q, %v", w.name, f.kind, f.name, f.payload, err)
		}
	}
	if _, err := frames.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

func readFrames(b []byte) (n int, err error) {
	frames := frameReader{r: bufio.NewReaderSize(bytes.NewReader(b), 64)}
	for {
		if _, err = frames.next(); err != nil {
			return n, err
		}
		n++
	}
}

// What is damaged, cut or no frame at all is an error, and of a kind that says so.
func TestFramesThatAreNone(t *testing.T) {
	whole := awsFrame(t, "event", "a", []byte(`{"a":1}`))
	for at := 1; at < len(whole); at++ {
		if n, err := readFrames(whole[:at]); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %d, %v", at, n, err)
		}
	}
	sized := func(size, headers uint32) []byte {
		b := bytes.Clone(whole)
		binary.BigEndian.PutUint32(b, size)
		binary.BigEndian.PutUint32(b[4:], headers)
		return seal(b)
	}
	for name, b := range map[string][]byte{
		"no length":           sized(0, 0),
		"shorter than itself": sized(15, 0),
		"too many headers":    sized(uint32(len(whole)), uint32(len(whole))-15),
		"endless headers":     sized(uint32(len(whole)), 1<<32-1),
		"longer than allowed": sized(maxEvent+1, 0),
	} {
		if _, err := readFrames(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, headers := range []string{"\x01", "\x02a", "\x01a\x0a", "\x01a\x07", "\x01a\x07\x00\x02b", "\x01a\x04abc", "\x01a\x00\x01"} {
		b := append(make([]byte, preludeSize), headers...)
		b = append(b, 0, 0, 0, 0)
		binary.BigEndian.PutUint32(b, uint32(len(b)))
		binary.BigEndian.PutUint32(b[4:], uint32(len(headers)))
		if _, err := readFrames(seal(b)); !errors.Is(err, errFrame) {
			t.Errorf("headers %q: %v", headers, err)
		}
	}
	var stray *strayLine
	if _, err := readFrames([]byte("bad gateway")); !errors.As(err, &stray) || string(stray.text) != "bad gateway" {
		t.Errorf("text: %v", err)
	}
}

// seal puts the sums of a frame right, as far as its length lets it.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[8:], sum(b[:8]))
	binary.BigEndian.PutUint32(b[len(b)-4:], sum(b[:len(b)-4]))
	return b
}

// The reader takes what AWS's own takes, and reads the same there, but for lengths
// that no frame has.
func FuzzFrames(f *testing.F) {
	one := awsFrame(f, "event", "contentBlockDelta", []byte(`{"contentBlockIndex":0,"delta":{"text":"a"}}`))
	f.Add(one)
	f.Add(append(bytes.Clone(one), awsFrame(f, "exception", "throttlingException", []byte(`{"message":"no"}`))...))
	f.Add([]byte("\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff"))
	f.Add([]byte("<html></html>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= minFrame && int(binary.BigEndian.Uint32(b)) == len(b) { // else no sum is ever right
			b = seal(bytes.Clone(b))
		}
		ours := frameReader{r: bufio.NewReaderSize(bytes.NewReader(b), 64)}
		theirs := bytes.NewReader(b)
		for {
			got, err := ours.next()
			if err != nil {
				return
			}
			want, err := eventstream.NewDecoder().Decode(theirs, nil)
			if err != nil {
				t.Fatalf("AWS's reader: %v, where ours reads %q", err, got.payload)
			}
			if !bytes.Equal(got.payload, validUTF8(want.Payload)) {
				t.Fatalf("payload %q, want %q", got.payload, want.Payload)
			}
			if v, ok := want.Headers.Get(":message-type").(eventstream.StringValue); ok && string(v) != string(got.kind) {
				t.Fatalf("kind %q, want %q", got.kind, v)
			}
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	one := awsFrame(b, "event", "contentBlockDelta", []byte(`{"contentBlockIndex":0,"delta":{"text":" token"},"p":"abcdefghijklmnopqrstuvwxyz"}`))
	stream := bytes.Repeat(one, 1000)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(stream)))
		for b.Loop() {
			if n, err := readFrames(stream); n != 1000 || !errors.Is(err, io.EOF) {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("AWS", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(stream)))
		var payload []byte
		for b.Loop() {
			r := bufio.NewReaderSize(bytes.NewReader(stream), readerSize)
			for range 1000 {
				m, err := eventstream.NewDecoder().Decode(r, payload)
				if err != nil {
					b.Fatal(err)
				}
				payload = m.Payload
			}
		}
	})
}
