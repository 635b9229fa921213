package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"

	"github.com/vramjet/vramjet/dispatcher/simulate"
	"github.com/vramjet/vramjet/schemas"
)

// fleetFile is a fleet as it is written, which is checked as the configuration is.
type fleetFile struct {
	Nodes  []fleetNode  `koanf:"nodes"`
	Models []fleetModel `koanf:"models"`
}

type fleetNode struct {
	Name    string   `koanf:"name"`
	Count   int      `koanf:"count"`
	Devices []Memory `koanf:"devices"`
	Read    Memory   `koanf:"read"`
}

type fleetModel struct {
	Name    string  `koanf:"name"`
	Need    Memory  `koanf:"need"`
	Slots   int     `koanf:"slots"`
	Prefill float64 `koanf:"prefill"`
	Decode  float64 `koanf:"decode"`
}

// readFleet reads a fleet. Errors say where in the file they are.
func readFleet(path string) (simulate.Fleet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return simulate.Fleet{}, fmt.Errorf("--fleet: %w", err)
	}
	f, err := parseFleet(path, text)
	if err != nil {
		return simulate.Fleet{}, err
	}
	return f.fleet(), nil
}

func parseFleet(path string, text []byte) (*fleetFile, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: want nodes: and models:, and below each a list", path)
	}
	l := loader{config: koanf.New(keySeparator), from: sources{}}
	l.lay(doc.Content[0], nil, reflect.TypeFor[fleetFile](), func(n *yaml.Node) source {
		return source{byFile, fmt.Sprintf("%s:%d", path, n.Line)}
	})
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	var f fleetFile
	if err := l.config.Unmarshal("", &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(f.Nodes) == 0 || len(f.Models) == 0 {
		return nil, fmt.Errorf("%s: want one node and one model at least", path)
	}
	return &f, nil
}

// fleet returns what is written.
func (f *fleetFile) fleet() simulate.Fleet {
	var fleet simulate.Fleet
	for _, n := range f.Nodes {
		var devices []schemas.Bytes
		for _, d := range n.Devices {
			devices = append(devices, d.amount().Bytes)
		}
		fleet.Nodes = append(fleet.Nodes, simulate.Node{Name: n.Name, Count: n.Count, Devices: devices, Read: n.Read.amount().Bytes})
	}
	for _, m := range f.Models {
		fleet.Models = append(fleet.Models, simulate.Model{Name: m.Name, Need: m.Need.amount().Bytes, Slots: m.Slots, Prefill: m.Prefill, Decode: m.Decode})
	}
	return fleet
}

// inFleet says that an error is about the fleet's file, if there is one.
func (c *simulateCmd) inFleet(err error) error {
	if c.Fleet == "" {
		return err
	}
	return fmt.Errorf("%s: %w", c.Fleet, err)
}

// fleetFor returns the fleet, for jobs that name these models.
func (c *simulateCmd) fleetFor(named []string) (simulate.Fleet, error) {
	if c.Fleet == "" {
		return c.madeFleet(named)
	}
	f, err := readFleet(c.Fleet)
	if err != nil || c.Models == nil {
		return f, err
	}
	if *c.Models > len(f.Models) {
		return f, fmt.Errorf("--models %d: %s has %s", *c.Models, c.Fleet, count(len(f.Models), "model"))
	}
	f.Models = f.Models[:*c.Models]
	return f, nil
}

// madeFleet returns a fleet that has the models which jobs name, and others up to
// how many there have to be.
func (c *simulateCmd) madeFleet(named []string) (simulate.Fleet, error) {
	n := len(named)
	switch {
	case c.Models != nil && *c.Models < n:
		return simulate.Fleet{}, fmt.Errorf("--models %d: the jobs name %s", *c.Models, count(n, "model"))
	case c.Models != nil:
		n = *c.Models
	case n == 0:
		return simulate.DefaultFleet(), nil
	}
	f := simulate.FleetOf(n)
	for i, name := range named {
		f.Models[i].Name = name
	}
	return f, nil
}

// counted counts what a fleet has.
func counted(f simulate.Fleet) (nodes, devices int, memory schemas.Bytes) {
	for _, n := range f.Nodes {
		each := max(1, n.Count)
		nodes += each
		devices += each * len(n.Devices)
		for _, d := range n.Devices {
			memory += schemas.Bytes(each) * d //nolint:gosec // a count of nodes
		}
	}
	return nodes, devices, memory
}
