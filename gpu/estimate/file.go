package estimate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	parser "github.com/gpustack/gguf-parser-go"

	"github.com/vramjet/vramjet/schemas"
)

// readTime is how long it may take to read a header from a disk.
const readTime = 30 * time.Second

// Read makes a Model of the header of a GGUF file. Of a model in several files, it is
// the first one's path, and all have to be there. Nothing else of the file is read.
func Read(ctx context.Context, path string) (*Model, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for _, part := range parts(path) {
		if err := checkFile(part); err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
	}
	file, err := guarded(ctx, func() (*parser.GGUFFile, error) {
		return parser.ParseGGUFFile(path, parser.SkipLargeMetadata())
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, err := fromFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// parts returns the files of a model.
func parts(path string) []string {
	if all := parser.CompleteShardGGUFFilename(path); len(all) > 0 && len(all) < maxTensors {
		return all
	}
	return []string{path}
}

func checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.Unwrap(err) // the path is said by the caller
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errNotGGUF
	}
	return checkHeader(f)
}

// guarded calls the parser, which waits for disks.
func guarded[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1) // a disk that hangs keeps the goroutine, and not the caller
	go func() {
		value, err := recovered(call)
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// recovered calls the parser, which panics on some files.
func recovered[T any](call func() (T, error)) (value T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its header makes no sense: %v", r)
		}
	}()
	return call()
}

// fromFile makes a Model of what the parser read.
func fromFile(file *parser.GGUFFile) (*Model, error) {
	values := map[string]any{}
	for _, kv := range file.Header.MetadataKV {
		values[kv.Key] = plain(kv.Value)
	}
	arch, _ := values["general.architecture"].(string)
	if arch == "" {
		return nil, errors.New("it has no general.architecture")
	}
	tensors, err := recovered(func() ([]tensor, error) { // sizes that overflow panic
		list := make([]tensor, 0, len(file.TensorInfos))
		for _, t := range file.TensorInfos {
			list = append(list, tensor{name: t.Name, size: float64(t.Bytes())})
			if t.Name == "token_embd.weight" && len(t.Dimensions) == 2 && values[arch+".vocab_size"] == nil {
				values[arch+".vocab_size"] = float64(t.Dimensions[1])
			}
		}
		return list, nil
	})
	if err != nil {
		return nil, err
	}
	if len(tensors) == 0 {
		return nil, errors.New("it has no tensors: it is a vocabulary, and no model")
	}
	m, err := fromMeta(meta{arch: arch, values: values}, schemas.Bytes(file.ModelSize))
	if err != nil {
		return nil, err
	}
	m.setTensors(tensors)
	m.file = file
	return m, nil
}

// plain returns a value of a header as JSON would have it. Of a list that was passed
// over, it is the length.
func plain(value any) any {
	if list, ok := value.(parser.GGUFMetadataKVArrayValue); ok {
		if list.Array == nil {
			return int(min(list.Len, maxWidth))
		}
		all := make([]any, len(list.Array))
		for i, v := range list.Array {
			all[i] = plain(v)
		}
		return all
	}
	switch v := reflect.ValueOf(value); {
	case v.CanInt():
		return float64(v.Int())
	case v.CanUint():
		return float64(v.Uint())
	case v.CanFloat():
		return v.Float()
	default:
		return value
	}
}

// fetchTime is how long it may take to read a header from the network.
const fetchTime = 2 * time.Minute

// Fetch is Read for a file on the web: an address such as
// https://huggingface.co/…/resolve/main/model.gguf. Only the header is downloaded.
func Fetch(ctx context.Context, address string) (*Model, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https"}, u.Scheme) {
		return nil, fmt.Errorf("%q is not like https://host/model.gguf", address)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	m, err := fetch(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return m, nil
}

func fetch(ctx context.Context, address string) (*Model, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err) // without the address
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server answers %s", resp.Status)
	case resp.ContentLength < 0:
		return nil, errors.New("the server doesn't say how large the file is")
	}
	return readSparse(ctx, resp.Body, resp.ContentLength)
}

// readSparse reads the header from the beginning of a file of that size. The parser
// wants a file: it gets one that has nothing behind its header.
func readSparse(ctx context.Context, from io.Reader, size int64) (*Model, error) {
	f, err := os.CreateTemp("", "vramjet-*.gguf")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := checkHeader(io.TeeReader(io.LimitReader(from, size), f)); err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	m, err := Read(ctx, f.Name())
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), f.Name()+": ")) // nobody knows that file
	}
	return m, nil
}
