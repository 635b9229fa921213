package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// A modelAt is a place of a model: a backend of a node that serves it.
type modelAt struct {
	node    *schemas.NodeState
	backend *schemas.Backend
	model   *schemas.Model
}

// String names the place: gpu-1/ollama.
func (p modelAt) String() string { return p.node.Node + "/" + p.backend.Name }

// placesOf returns where there are models, by node, backend and model, as the nodes
// list them.
func placesOf(nodes []schemas.NodeState) []modelAt {
	var places []modelAt
	for i := range nodes {
		for j := range nodes[i].Backends {
			b := &nodes[i].Backends[j]
			for k := range b.Models {
				places = append(places, modelAt{&nodes[i], b, &b.Models[k]})
			}
		}
	}
	return places
}

// modelNames lists the models of all nodes, each once.
func modelNames(places []modelAt) []string {
	var names []string
	for _, p := range places {
		names = append(names, p.model.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A target is what a command line names: a model, and maybe where.
type target struct {
	Model   string `arg:"" help:"The model, as users name it."`
	Node    string `placeholder:"NAME" help:"On this node (default: on all, or the one that is possible)."`
	Backend string `placeholder:"NAME" help:"On this backend of a node (default: on all, or the one that is possible)."`
}

// find returns the places that a target means. That there are none is an error.
func (t *target) find(nodes []schemas.NodeState) ([]modelAt, error) {
	all := placesOf(nodes)
	if t.Node != "" {
		if _, err := nodeNamed(nodes, t.Node); err != nil {
			return nil, err
		}
	}
	var serving, meant []modelAt
	for _, p := range all {
		if p.model.Name != t.Model {
			continue
		}
		serving = append(serving, p)
		if (t.Node == "" || t.Node == p.node.Node) && (t.Backend == "" || t.Backend == p.backend.Name) {
			meant = append(meant, p)
		}
	}
	switch {
	case len(serving) == 0:
		return nil, notFound("no node has the model "+t.Model, t.Model, modelNames(all))
	case len(meant) == 0:
		return nil, &codedError{exitNotFound, fmt.Errorf("%s is not there: it is at %s", t.Model, names(serving))}
	}
	return meant, nil
}

// names lists places: gpu-1/ollama, gpu-2/vllm.
func names(places []modelAt) string {
	list := make([]string, len(places))
	for i, p := range places {
		list[i] = p.String()
	}
	return strings.Join(list, ", ")
}
