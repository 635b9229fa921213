package main

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func judgeDispatchers(f *facts) (all []remark) {
	const start = "vramjet dispatcher   # on any machine"
	if errors.Is(f.answer.err, client.ErrNoDispatcher) {
		if f.dispatchers.err == nil && len(f.dispatchers.got) > 0 {
			return []remark{checkDispatchers.fail("look at their logs; restart them", "%s, and none answers as the leader", count(len(f.dispatchers.got), "dispatcher"))}
		}
		return []remark{checkDispatchers.fail(start, "none is running: jobs are taken, and none begins")}
	}
	if f.answer.err != nil {
		return checkDispatchers.notMade(f.answer.err)
	}
	if f.dispatchers.err != nil {
		all = append(all, checkDispatchers.ok("one leads and answers in %s", short(f.answer.got)))
		return append(all, checkDispatchers.warn("", "standbys: not checked: %s", oneLine(f.dispatchers.err.Error())))
	}
	found := f.dispatchers.got
	for i := range found {
		d := &found[i]
		switch p := d.Metadata["protocol"]; {
		case p != protocol:
			all = append(all, checkDispatchers.fail("run the same version everywhere", "%s speaks protocol %s, and this program %s", dispatcherName(d), orUnnamed(p), protocol))
		case d.Version != f.version:
			all = append(all, checkDispatchers.warn("run the same version everywhere", "%s has version %s, and this program %s", dispatcherName(d), d.Version, f.version))
		}
	}
	switch {
	case len(found) == 1 && len(all) == 0 && f.embedded():
		all = append(all, checkDispatchers.ok("one leads and answers in %s; it ends and starts with the embedded server, in vramjet up", short(f.answer.got)))
	case len(found) == 1:
		all = append(all, checkDispatchers.warn("vramjet dispatcher   # one more, on another machine", "one leads and answers in %s; no other stands by", short(f.answer.got)))
	case len(all) == 0:
		all = append(all, checkDispatchers.ok("%s leads and answers in %s, %d on standby", f.leading(), short(f.answer.got), len(found)-1))
	}
	return all
}

func dispatcherName(d *micro.Info) string { return "dispatcher " + orUnnamed(d.Metadata["dispatcher"]) }

// leading names the leader.
func (f *facts) leading() string {
	if f.leader.err != nil || f.leader.got == "" {
		return "one"
	}
	return f.leader.got
}

func judgeNodes(f *facts) (all []remark) {
	if f.nodes.err != nil {
		return checkNodes.notMade(f.nodes.err)
	}
	nodes := f.nodes.got.states
	all = unheard(f)
	if len(nodes) == 0 && len(all) == 0 {
		return []remark{checkNodes.fail("vramjet worker   # on each machine with model servers", "none answers: jobs wait")}
	}
	for i := range nodes {
		n := &nodes[i]
		if n.Version != f.version {
			all = append(all, checkNodes.warn("run the same version everywhere", "%s has version %s, and this program %s", n.Node, orUnnamed(n.Version), f.version))
		}
		if n.Draining {
			all = append(all, checkNodes.warn("vramjet nodes undrain "+n.Node, "%s is draining: it takes no jobs", n.Node))
		}
	}
	if len(all) == 0 {
		all = append(all, checkNodes.ok("%s, version %s: all report", count(len(nodes), "node"), f.version))
	}
	return all
}

// unheard remarks on workers that are connected and do not report, and on names that
// several of them have.
func unheard(f *facts) (all []remark) {
	if f.workers.err != nil {
		return nil // what was refused is a remark of its own
	}
	by := map[string]int{}
	for _, w := range f.workers.got {
		by[w.Metadata["node"]]++
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		reports := slices.ContainsFunc(f.nodes.got.states, func(n schemas.NodeState) bool { return n.Node == name })
		switch {
		case by[name] > 1:
			all = append(all, checkNodes.fail("vramjet worker --node NAME   # another name for each", "%d workers have the name %s", by[name], name))
		case !reports:
			all = append(all, checkNodes.fail("look at its log; restart it", "%s is connected and does not report", name))
		}
	}
	return all
}

// errNobody is why nothing is known of backends and devices.
var errNobody = errors.New("no node answers")

func judgeBackends(f *facts) (all []remark) {
	if f.nodes.err != nil {
		return checkBackends.notMade(f.nodes.err)
	}
	nodes := f.nodes.got.states
	if len(nodes) == 0 {
		return checkBackends.notMade(errNobody)
	}
	healthy, models := 0, map[string]bool{}
	for i := range nodes {
		n := &nodes[i]
		if len(n.Backends) == 0 {
			all = append(all, checkBackends.warn("on "+n.Node+": vramjet backends check", "%s has found no model server", n.Node))
		}
		for j := range n.Backends {
			b := &n.Backends[j]
			if !b.Healthy {
				all = append(all, checkBackends.warn("on "+n.Node+": vramjet backends check", "%s/%s: %s", n.Node, b.Name, oneLine(orUnnamed(b.Error))))
				continue
			}
			healthy++
			for _, m := range b.Models {
				models[m.Name] = true
			}
		}
	}
	switch {
	case healthy == 0:
		all = append(all, checkBackends.fail("", "no node has a model server that is well: no job can run"))
	case len(models) == 0:
		all = append(all, checkBackends.fail("pull a model, such as: ollama pull llama3.2", "no model server has a model: no job can run"))
	case len(all) == 0:
		all = append(all, checkBackends.ok("%s, all well, with %s", count(healthy, "backend"), count(len(models), "model")))
	}
	return all
}

func judgeDevices(f *facts) (all []remark) {
	if f.nodes.err != nil {
		return checkDevices.notMade(f.nodes.err)
	}
	if len(f.nodes.got.states) == 0 {
		return checkDevices.notMade(errNobody)
	}
	found := 0
	for i := range f.nodes.got.states {
		n := &f.nodes.got.states[i]
		found += len(n.Devices)
		for _, d := range n.Devices {
			if d.Error != "" {
				all = append(all, checkDevices.warn("vramjet nodes show "+n.Node, "%s: %s (%s): %s", n.Node, d.ID, orUnnamed(d.Name), oneLine(d.Error)))
			}
		}
		if len(n.Devices) == 0 && hasLocalModels(n) {
			all = append(all, checkDevices.warn("install the GPU's driver on "+n.Node+", or in a container pass the devices on; without a GPU, all is well",
				"%s has models and found no device: %s", n.Node, oneLine(orUnnamed(n.DeviceSource))))
		}
	}
	if len(all) == 0 {
		all = append(all, checkDevices.ok("%s, all well", count(found, "device")))
	}
	return all
}

// hasLocalModels reports whether a node has models that take memory of its own.
func hasLocalModels(n *schemas.NodeState) bool {
	return slices.ContainsFunc(n.Backends, func(b schemas.Backend) bool {
		return slices.ContainsFunc(b.Models, func(m schemas.Model) bool { return m.State != schemas.Remote })
	})
}

// few lists names, and how many more there are.
func few(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		return strings.Join(names[:most], ", ") + " and " + count(more, "other")
	}
	return strings.Join(names, ", ")
}
