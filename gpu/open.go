package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// A source reads devices from one place. One goroutine at a time calls it, and
// may hang in it.
type source interface {
	name() string
	read(ctx context.Context) ([]Device, error)
	close() error
}

// Open returns a reader of the first source that finds a device, and one of no
// devices where none does. On Linux these are, in order, NVML, nvidia-smi, the
// files of a Jetson, of AMD's driver and of Intel's; on a Mac the system's own
// tools; elsewhere nvidia-smi. It takes up to 10 s for each of them. The caller
// closes it.
func Open(log *slog.Logger) Reader { return open(log, systemOpeners()) }

// An opener opens a source that has at least one device, or says why it can't.
type opener struct {
	name string
	open func(context.Context) (source, error)
}

var smiOpener = opener{"nvidia-smi", func(ctx context.Context) (source, error) { return openSMI(ctx, "nvidia-smi", "/") }}

const openTimeout = 10 * time.Second

func open(log *slog.Logger, openers []opener) Reader {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var reasons []string
	for _, o := range openers {
		s, err := openWithin(ctx, o, openTimeout)
		if err == nil {
			w := watch(s)
			w.why = strings.Join(reasons, "; not ")
			log.Info("devices found", "source", w.Source())
			return w
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", o.name, err))
	}
	why := strings.Join(reasons, "; ")
	log.Info("no devices found", "reason", why)
	return fixed{source: "none: " + why}
}

// openWithin opens a source on a goroutine of its own, since a driver may hang
// at its very first call. One that comes too late is closed again.
func openWithin(ctx context.Context, o opener, limit time.Duration) (source, error) {
	type result struct {
		source source
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	opened := make(chan result)
	go func() {
		s, err := o.open(ctx)
		select {
		case opened <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				_ = s.close() // nobody is there to hear of it
			}
		}
	}()
	select {
	case r := <-opened:
		return r.source, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer within %s", limit)
	}
}

var errNoDevices = errors.New("no devices")

// opened returns a source that has been read once, and an error where that found
// nothing.
func opened(ctx context.Context, s source) (source, error) {
	devices, err := s.read(ctx)
	if err == nil && len(devices) == 0 {
		err = errNoDevices
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}
