package worker

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// machine is who reads the devices of the machine, in the books. A backend that
// reports its own stands there by its name.
const machine = ""

// A reading is what the devices of a source were seen to be.
type reading struct {
	source   string
	at       time.Time        // when it was begun
	readings []ledger.Reading // nil: they cannot be read now
}

func (r reading) apply(_ context.Context, n *node) {
	n.observe(r)
	n.progress(time.Now())
}

// observe takes in what the devices of a source are, unless something newer is known.
func (n *node) observe(r reading) {
	if r.at.Before(n.measured[r.source]) {
		return
	}
	n.measured[r.source] = r.at
	if b := n.backend(r.source); b != nil {
		b.own = r.readings
	} else {
		n.devices = r.readings
	}
	n.books.Observe(r.source, r.readings, r.at)
	n.changed = true
}

// devicesOf returns the devices that b's models load on.
func (n *node) devicesOf(b *backend) []ledger.Reading {
	switch {
	case b.own != nil:
		return b.own
	case b.Devices == nil:
		return n.devices
	}
	var found []ledger.Reading
	for i, d := range n.devices {
		if slices.Contains(b.Devices, d.ID) || slices.Contains(b.Devices, strconv.Itoa(i)) {
			found = append(found, d)
		}
	}
	return found
}

// idsOf returns the ids of the devices that b's models load on.
func (n *node) idsOf(b *backend) []string {
	devices := n.devicesOf(b)
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = d.ID
	}
	return ids
}

// account enters which of its models a backend holds.
func (n *node) account(b *backend, now time.Time) {
	var there []ledger.Resident
	for i := range b.models {
		if m := b.models[i]; m.State == schemas.Resident {
			size := m.VRAM
			if !size.Known {
				n.need(b, &m, now)
				size = m.Need
			}
			there = append(there, ledger.Resident{Model: m.Name, Bytes: size})
		}
	}
	n.books.Residents(b.Name, n.idsOf(b), there, now)
}

// withAccount returns a device with what the books say of it.
func (n *node) withAccount(d schemas.Device) schemas.Device {
	a := n.books.Account(d.ID)
	d.Ours, d.Others, d.Promised, d.Available, d.Lacking = a.Ours, a.Others, a.Promised, a.Available, a.Lacking
	return d
}

// watchDevices reads the devices again and again, until ctx ends.
func (w *Worker) watchDevices(ctx context.Context) {
	failing := false
	for {
		r, err := w.readMachine(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			w.send(r)
		case !failing:
			w.cfg.Logger.Warn("devices cannot be read", "source", w.cfg.GPU.Source(), "err", err)
			w.send(reading{source: machine, at: time.Now()}) // unknown, rather than as they were
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(w.pace.devices)):
		}
	}
}

var errNoDevices = errors.New("the node has no devices")

// readMachine reads the machine's devices, and what of them the node's own servers
// hold.
func (w *Worker) readMachine(ctx context.Context) (reading, error) {
	if w.cfg.GPU == nil {
		return reading{}, errNoDevices
	}
	at := time.Now()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	devices, err := w.cfg.GPU.Devices(ctx)
	if err != nil {
		return reading{}, err
	}
	r := reading{source: machine, at: at, readings: make([]ledger.Reading, len(devices))}
	for i, d := range devices {
		r.readings[i] = ledger.Reading{Device: d.Device, Held: w.owners.held(d.Processes)}
	}
	return r, nil
}

// readFor reads the devices that b's models load on, from whoever knows them.
func (w *Worker) readFor(ctx context.Context, b Backend) (reading, error) {
	server, ok := b.Provider.(providers.DeviceReporter)
	if !ok {
		return w.readMachine(ctx)
	}
	at := time.Now()
	devices, err := server.Devices(ctx)
	return reading{source: b.Name, at: at, readings: ownReadings(devices)}, err
}

// ownReadings are the devices that a server reports itself, with what it holds.
func ownReadings(devices []schemas.Device) []ledger.Reading {
	readings := make([]ledger.Reading, len(devices))
	for i, d := range devices {
		readings[i] = ledger.Reading{Device: d, Held: d.Ours}
	}
	return readings
}
