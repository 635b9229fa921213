package estimate_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/gpu/estimate"
	"github.com/vramjet/vramjet/schemas"
)

// A row is what llama-server b10573 took on an H100, in MiB: its buffers there, and
// its process as NVML sees it.
type row struct {
	model, quant string
	load         estimate.Load
	buffers      [3]float64 // weights, KV, compute
	process      float64
}

// h100 are the rows that were measured.
var h100 = []row{
	{"llama3.2-1b", "q4_0", estimate.Load{Context: 8192}, [3]float64{663.16, 256, 68.01}, 1576},
	{"llama3.2-1b", "f16", estimate.Load{Context: 8192}, [3]float64{2357.26, 256, 68.01}, 3270},
	{"llama3.1-8b", "q4_0", estimate.Load{Context: 2048}, [3]float64{4026.83, 256, 110.01}, 4982},
	{"llama3.1-8b", "q4_0", estimate.Load{Context: 8192}, [3]float64{4026.83, 1024, 116.01}, 5756},
	{"llama3.1-8b", "q4_0", estimate.Load{Context: 8192, FlashAttention: "off"}, [3]float64{4026.83, 1024, 564.01}, 6204},
	{"llama3.1-8b", "q4_0", estimate.Load{Context: 32768, Parallel: 4}, [3]float64{4026.83, 4096, 116.01}, 8828},
	{"llama3.1-8b", "q4_0", estimate.Load{Context: 32768, Parallel: 4, UBatch: 2048}, [3]float64{4026.83, 4096, 464.04}, 9176},
	{"llama3.1-8b", "q8_0", estimate.Load{Context: 8192}, [3]float64{7605.33, 1024, 116.01}, 9334},
	{"qwen2.5-32b", "q4_0", estimate.Load{Context: 8192}, [3]float64{17161.93, 2048, 200.01}, 20002},
	{"llama3-70b", "q4_0", estimate.Load{Context: 8192}, [3]float64{37288.66, 2560, 224.01}, 40666},
}

var quants = map[string]uint32{"q4_0": typeQ4, "q8_0": typeQ8, "f16": typeF16, "f32": typeF32}

// read makes the Model of a shape, from a file.
func read(t *testing.T, g *gguf) *estimate.Model {
	t.Helper()
	m, err := estimate.Read(t.Context(), g.write(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func of(t *testing.T, m *estimate.Model, l estimate.Load) *estimate.Estimate {
	t.Helper()
	e, err := m.Estimate(l)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mib(b schemas.Bytes) float64 { return float64(b) / float64(schemas.MiB) }

// off is how far got is from want, in percent.
func off(got, want float64) float64 { return 100 * (got - want) / want }

// compare holds estimates to what was measured: buffers within 1 %, and each within
// 1 MiB, the process within 2 %.
func compare(t *testing.T, rows []row) {
	t.Helper()
	const head, line = "%-12s %-5s %-22s %8s %8s %8s  %8s %6s  %8s %6s", "%-12s %-5s %-22s %8.1f %8.1f %8.1f  %8.1f %+5.2f%%  %8.0f %+5.2f%%"
	table := []string{fmt.Sprintf(head, "model", "quant", "load", "weights", "kv", "compute", "measured", "", "process", "")}
	for i := range rows {
		r := &rows[i]
		e := of(t, read(t, shapes[r.model].gguf(all(quants[r.quant]))), r.load)
		sum := r.buffers[0] + r.buffers[1] + r.buffers[2]
		buffers, process := off(mib(e.Buffers()), sum), off(mib(e.Total()), r.process)
		what := fmt.Sprintf("c%d np%d ub%d %s%s", r.load.Context, max(1, r.load.Parallel), r.load.UBatch, r.load.KVType, r.load.FlashAttention)
		table = append(table, fmt.Sprintf(line, r.model, r.quant, what, mib(e.Weights), mib(e.KV), mib(e.Compute), sum, buffers, r.process, process))
		if math.Abs(buffers) > 1 || math.Abs(process) > 2 {
			t.Errorf("row %d is off", i)
		}
		for j, got := range []schemas.Bytes{e.Weights, e.KV, e.Compute} {
			if math.Abs(mib(got)-r.buffers[j]) > 1 {
				t.Errorf("row %d: buffer %d is %.2f MiB, measured %.2f", i, j, mib(got), r.buffers[j])
			}
		}
	}
	t.Log("in MiB:\n" + strings.Join(table, "\n"))
}

func TestH100(t *testing.T) { compare(t, h100) }

// The same, and what else was measured, from the file.
func TestH100File(t *testing.T) {
	shared := os.Getenv("VRAMJET_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(shared, "data", "llamacpp-h100-vram.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no llamacpp-h100-vram.jsonl: set VRAMJET_SHARED to the directory above its data directory")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rows []row
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var line struct {
			Model, Quant  string
			Ctx, Parallel int
			Args          []string
			Process       float64     `json:"proc_mib_after_load"`
			Buffers       [][3]string `json:"buffers"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		r := row{model: line.Model, quant: line.Quant, load: estimate.Load{Context: line.Ctx, Parallel: line.Parallel}, process: line.Process}
		for args := line.Args; len(args) > 1; args = args[2:] {
			switch args[0] {
			case "-fa":
				r.load.FlashAttention = args[1]
			case "-ub":
				r.load.UBatch, _ = strconv.Atoi(args[1])
			case "-ctk", "-ctv":
				r.load.KVType = args[1]
			}
		}
		for _, b := range line.Buffers {
			if i := slices.Index([]string{"model", "KV", "compute"}, b[1]); i >= 0 && b[0] == "CUDA0" {
				r.buffers[i], _ = strconv.ParseFloat(b[2], 64)
			}
		}
		rows = append(rows, r)
	}
	if len(rows) < len(h100) {
		t.Errorf("%d rows, want %d at least", len(rows), len(h100))
	}
	compare(t, rows)
}

// TestOtherMeasurements: CUDA0 compute buffers of llama.cpp c841aeeb8 on a GTX 1070 Ti, in
// MiB, with one slot, as the tests of gguf-parser-go v0.28.1 state them.
func TestOtherMeasurements(t *testing.T) {
	qwen := map[string]any{
		"general.architecture": "qwen3", "qwen3.block_count": 28.0, "qwen3.embedding_length": 1024.0, "qwen3.feed_forward_length": 3072.0,
		"qwen3.attention.head_count": 16.0, "qwen3.attention.head_count_kv": 8.0, "qwen3.attention.key_length": 128.0,
		"qwen3.attention.value_length": 128.0, "qwen3.vocab_size": 151936.0,
	}
	olmoe := map[string]any{
		"general.architecture": "olmoe", "olmoe.block_count": 16.0, "olmoe.embedding_length": 2048.0, "olmoe.feed_forward_length": 1024.0,
		"olmoe.attention.head_count": 16.0, "olmoe.attention.head_count_kv": 16.0, "olmoe.expert_count": 64.0, "olmoe.expert_used_count": 8.0,
	}
	granite := map[string]any{
		"general.architecture": "granitemoe", "granitemoe.block_count": 32.0, "granitemoe.embedding_length": 1536.0,
		"granitemoe.feed_forward_length": 512.0, "granitemoe.attention.head_count": 24.0, "granitemoe.attention.head_count_kv": 8.0,
		"granitemoe.expert_count": 40.0, "granitemoe.expert_used_count": 8.0,
	}
	for _, c := range []struct {
		name string
		info map[string]any
		load estimate.Load
		want float64
	}{
		{"qwen3-0.6b", qwen, estimate.Load{Context: 4096}, 30.01},
		{"qwen3-0.6b", qwen, estimate.Load{Context: 4096, KVType: "q8_0"}, 32.09},
		{"qwen3-0.6b", qwen, estimate.Load{Context: 8192, KVType: "q8_0"}, 52.09},
		{"olmoe-1b-7b", olmoe, estimate.Load{Context: 4096}, 64.01},
		{"olmoe-1b-7b", olmoe, estimate.Load{Context: 4096, KVType: "q8_0"}, 64.09},
		{"granite-3.1-3b-a800m", granite, estimate.Load{Context: 4096, KVType: "q8_0"}, 61.04},
	} {
		m, err := estimate.FromInfo(c.info, schemas.GiB)
		if err != nil {
			t.Fatal(err)
		}
		got := mib(of(t, m, c.load).Compute)
		t.Logf("%-20s c%d %-4s  %6.2f MiB, measured %6.2f: %+.2f%%", c.name, c.load.Context, c.load.KVType, got, c.want, off(got, c.want))
		if math.Abs(off(got, c.want)) > 1 {
			t.Errorf("%s: the compute buffer is off", c.name)
		}
	}
}

// TestParserTable: totals of Q4_K_M files against gguf-parser-go's with 457 MiB for
// the context of CUDA, in MiB. Its compute buffers are no measurements: with a ubatch
// of 2048 it has 912 where the H100 took 464.
func TestParserTable(t *testing.T) {
	for _, c := range []struct {
		model   string
		of      kinds
		load    estimate.Load
		weights float64
		want    float64
	}{
		{"llama3.1-8b", mixed, estimate.Load{Context: 8192}, 4403.5, 6040},
		{"llama3.1-8b", mixed, estimate.Load{Context: 8192, FlashAttention: "off"}, 4403.5, 6444},
		{"llama3.1-8b", mixed, estimate.Load{Context: 32768, Parallel: 4}, 4403.5, 9184},
		{"llama3.1-8b", mixed, estimate.Load{Context: 32768, Parallel: 4, KVType: "q8_0"}, 4403.5, 7312},
		{"llama3.1-8b", mixed, estimate.Load{Context: 32768, UBatch: 2048}, 4403.5, 9868},
		{"qwen2.5-32b", mixed, estimate.Load{Context: 8192}, 18508.4, 21259},
		{"qwen2.5-32b", mixed, estimate.Load{Context: 32768}, 18508.4, 27475},
		{"qwen2.5-32b", mixed, estimate.Load{Context: 32768, KVType: "q8_0"}, 18508.4, 23635},
		{"llama3-70b", mixed, estimate.Load{Context: 8192}, 39979.5, 43284},
		{"llama3-70b", all(typeQ4), estimate.Load{Context: 8192}, 37288.7, 40852}, // its output is no Q6_K here
		{"llama3-70b", mixed, estimate.Load{Context: 8192, Devices: 2}, 39979.5, 22192 + 22030},
	} {
		e := of(t, read(t, shapes[c.model].gguf(c.of)), c.load)
		t.Logf("%-12s %+v  weights %8.1f  total %8.1f, theirs %6.0f: %+.2f%%", c.model, c.load, mib(e.Weights), mib(e.Total()), c.want, off(mib(e.Total()), c.want))
		if math.Abs(mib(e.Weights)-c.weights) > 0.1 || math.Abs(off(mib(e.Total()), c.want)) > 3 {
			t.Errorf("%s %+v: weights %.1f MiB, want %.1f; total %.1f, want %.0f", c.model, c.load, mib(e.Weights), c.weights, mib(e.Total()), c.want)
		}
	}
}
