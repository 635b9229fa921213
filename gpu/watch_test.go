package gpu

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// fakeSource answers with what the test puts into answers, and hangs until then.
type fakeSource struct {
	answers chan []Device // a closed one fails
	reads   atomic.Int64
	closed  atomic.Bool
}

var errFake = errors.New("the fake fails")

func (*fakeSource) name() string { return "fake" }

func (f *fakeSource) read(context.Context) ([]Device, error) {
	f.reads.Add(1)
	d, ok := <-f.answers
	if !ok {
		return nil, errFake
	}
	return d, nil
}

func (f *fakeSource) close() error {
	f.closed.Store(true)
	return nil
}

func device(id string) []Device {
	return []Device{{Device: schemas.Device{ID: id, Kind: "sim"}}}
}

func wantDevice(t *testing.T, r Reader, id string) {
	t.Helper()
	got, err := r.Devices(t.Context())
	if err != nil || len(got) != 1 || got[0].ID != id {
		t.Errorf("got %v, %v, want %s", got, err, id)
	}
}

func TestHangingDriverBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{answers: make(chan []Device, 1)}
		w := watch(f)
		f.answers <- device("first")
		wantDevice(t, w, "first")

		start := time.Now()
		wantDevice(t, w, "first") // hangs, and is young enough
		if waited := time.Since(start); waited != patience {
			t.Errorf("the caller waited %s, want %s", waited, patience)
		}
		time.Sleep(freshness)
		got, err := w.Devices(t.Context())
		if err == nil || !strings.Contains(err.Error(), "does not answer") || len(got) != 1 {
			t.Errorf("got %v, %v, want the last reading and an error: it is too old", got, err)
		}
		if err := w.Close(); err == nil {
			t.Error("Close does not tell of the call that hangs")
		}
		f.answers <- device("second") // the driver comes back
		<-w.done
		if !f.closed.Load() {
			t.Error("the source was not closed")
		}
	})
}

func TestDriverThatComesBackIsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{answers: make(chan []Device, 2)}
		w := watch(f)
		if _, err := w.Devices(t.Context()); err == nil {
			t.Error("no reading yet, and no error")
		}
		f.answers <- device("old")
		f.answers <- device("new")
		wantDevice(t, w, "new")
		if err := w.Close(); err != nil || !f.closed.Load() {
			t.Errorf("closed: %t, %v", f.closed.Load(), err)
		}
		if _, err := w.Devices(t.Context()); err == nil {
			t.Error("a closed reader answers")
		}
	})
}

// Whoever asks during a reading gets the next one: what that reads may be from
// before the question.
func TestReadingIsNeverOlderThanTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{answers: make(chan []Device)}
		w := watch(f)
		got := make(chan string, 8)
		ask := func() {
			d, err := w.Devices(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- d[0].ID
		}
		go ask()
		synctest.Wait() // it's being read for
		for range 3 {
			go ask()
		}
		synctest.Wait()
		f.answers <- device("before")
		if id := <-got; id != "before" {
			t.Errorf("the first got %s", id)
		}
		synctest.Wait()
		f.answers <- device("after")
		for range 3 {
			synctest.Wait()
			select {
			case f.answers <- device("after"):
			default:
			}
			if id := <-got; id != "after" {
				t.Errorf("one who asked later got %s", id)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedReadingIsBridged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{answers: make(chan []Device, 1)}
		w := watch(f)
		f.answers <- device("good")
		wantDevice(t, w, "good")
		close(f.answers)
		wantDevice(t, w, "good")
		time.Sleep(freshness + time.Second)
		if d, err := w.Devices(t.Context()); !errors.Is(err, errFake) || len(d) != 1 {
			t.Errorf("got %v, %v, want the last reading and the driver's error", d, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCallersContextBoundsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{answers: make(chan []Device)}
		w := watch(f)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.Devices(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(f.answers)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCallersMayChangeWhatTheyGet(t *testing.T) {
	all := []Device{{Device: schemas.Device{ID: "a", Power: new(1)}, Processes: []Process{{PID: 1}}}}
	same := cloneDevices(all)
	*same[0].Power, same[0].Processes[0].PID = 2, 2
	if *all[0].Power != 1 || all[0].Processes[0].PID != 1 {
		t.Errorf("a change went through to %+v", all)
	}
	f := &fakeSource{answers: make(chan []Device, 1)}
	w := watch(f)
	for _, r := range []Reader{w, Fixed([]schemas.Device{device("a")[0].Device})} {
		if r == w {
			f.answers <- device("a")
		}
		d, _ := r.Devices(t.Context())
		d[0].ID = "changed"
		if r == w {
			close(f.answers)
		}
		wantDevice(t, r, "a")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenTakesTheFirstThatHasDevices(t *testing.T) {
	no := opener{"first", func(context.Context) (source, error) { return nil, errNoDevices }}
	f := &fakeSource{answers: make(chan []Device, 1)}
	yes := opener{"second", func(context.Context) (source, error) { return f, nil }}
	never := opener{"third", func(context.Context) (source, error) {
		t.Error("the third was opened")
		return nil, errNoDevices
	}}
	log := slog.New(slog.DiscardHandler)
	r := open(log, []opener{no, yes, never})
	if r.Source() != "fake (not first: no devices)" {
		t.Errorf("the source is %q", r.Source())
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}

	r = open(log, []opener{no})
	if d, err := r.Devices(t.Context()); err != nil || len(d) != 0 || r.Source() != "none: first: no devices" {
		t.Errorf("without any source: %v, %v, %q", d, err, r.Source())
	}
}

func TestOpenGivesUpOnADriverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		hang := make(chan struct{})
		r := open(slog.New(slog.DiscardHandler), []opener{{"slow", func(context.Context) (source, error) {
			<-hang
			return f, nil
		}}})
		if want := "none: slow: no answer within 10s"; r.Source() != want {
			t.Errorf("the source is %q, want %q", r.Source(), want)
		}
		close(hang)
		synctest.Wait()
		if !f.closed.Load() {
			t.Error("what came too late was not closed")
		}
	})
}

// Whatever this machine has, Open returns and leaves nothing behind.
func TestOpenHere(t *testing.T) {
	r := Open(slog.New(slog.DiscardHandler))
	d, err := r.Devices(t.Context())
	t.Logf("%s: %v, %v", r.Source(), d, err)
	if err != nil || strings.HasPrefix(r.Source(), "none") != (len(d) == 0) {
		t.Errorf("%s with %d devices, %v", r.Source(), len(d), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func wantDevices(t *testing.T, want []schemas.Device, got []Device) {
	t.Helper()
	plain := make([]schemas.Device, len(got))
	for i, d := range got {
		plain[i] = d.Device
	}
	if diff := cmp.Diff(want, plain); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
