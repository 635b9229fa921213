package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/vramjet/vramjet/dispatcher/simulate"
)

// gather reads and makes the jobs, and the fleet for them.
func (c *simulateCmd) gather(s *simulation, stdin io.Reader) error {
	jobs, err := c.read(stdin)
	if err != nil {
		return err
	}
	named := modelsOf(jobs)
	if s.fleet, err = c.fleetFor(named); err != nil {
		return err
	}
	if c.byDefault() {
		s.workload = defaultWorkload(s.fleet)
		if jobs, err = c.make(s.workload); err != nil {
			return err
		}
		s.workload = append(s.workload, "which is the default: --workload and --trace name others")
	} else {
		if c.Trace != "" {
			s.workload = append(s.workload, traceName(c.Trace))
		}
		s.workload = append(s.workload, c.Workload...)
	}
	var models []string
	for _, m := range s.fleet.Models {
		models = append(models, m.Name)
	}
	for _, name := range named {
		if !slices.Contains(models, name) {
			return notFound(fmt.Sprintf("jobs name the model %q, which the fleet does not have", name), name, models)
		}
	}
	for _, j := range jobs {
		if j.Model == "" {
			s.spread++
		}
	}
	simulate.Scale(jobs, c.Speed)
	simulate.Spread(jobs, models, c.Zipf, c.Seed)
	s.jobs = jobs
	return nil
}

// byDefault reports whether nobody said which jobs there are.
func (c *simulateCmd) byDefault() bool { return c.Trace == "" && len(c.Workload) == 0 }

// read returns the jobs of --trace and --workload.
func (c *simulateCmd) read(stdin io.Reader) ([]simulate.Job, error) {
	made, err := c.make(c.Workload)
	if err != nil || c.Trace == "" {
		return made, err
	}
	from := stdin
	if c.Trace != "-" {
		file, err := os.Open(c.Trace)
		if err != nil {
			return nil, fmt.Errorf("--trace: %w", err)
		}
		defer file.Close()
		from = file
	}
	traced, err := simulate.ReadTrace(from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", traceName(c.Trace), err)
	}
	return simulate.Merge(traced, made), nil
}

func traceName(trace string) string {
	if trace == "-" {
		return "stdin"
	}
	return trace
}

// make makes the jobs of workloads, each of a seed of its own, which no other --seed
// gives to one.
func (c *simulateCmd) make(specs []string) ([]simulate.Job, error) {
	var all [][]simulate.Job
	for i, spec := range specs {
		workload, err := simulate.ParseWorkload(spec)
		if err != nil {
			return nil, fmt.Errorf("--workload: %w", err)
		}
		all = append(all, workload(c.Seed+uint64(i+1)<<32))
	}
	return simulate.Merge(all...), nil
}

// defaultWorkload is a steady load of chats, and reports that come in bursts. Each
// device gets so much that it is busy for about half of the time in the fleet that is
// made.
func defaultWorkload(f simulate.Fleet) []string {
	_, devices, _ := counted(f)
	rate := 12 * max(1, devices)
	return []string{
		fmt.Sprintf("poisson:rate=%d/m,for=30m,tenant=chat,class=interactive,prompt=500,generated=100", rate),
		fmt.Sprintf("bursts:base=0/m,peak=%d/m,every=3m,for=30m,tenant=reports,class=batch,prompt=2000,generated=200", rate),
	}
}

// modelsOf returns the models that jobs name, the most popular first.
func modelsOf(jobs []simulate.Job) []string {
	asked := map[string]int{}
	for _, j := range jobs {
		if j.Model != "" {
			asked[j.Model]++
		}
	}
	return slices.SortedFunc(maps.Keys(asked), func(a, b string) int {
		return cmp.Or(cmp.Compare(asked[b], asked[a]), cmp.Compare(a, b))
	})
}
