package integration

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vramjet/vramjet/gpu/estimate"
	"github.com/vramjet/vramjet/schemas"
)

// bufferLine is how llama-server logs a buffer with -v. The first lines are of a dry
// run, whose buffers of weights and keys are empty.
var bufferLine = regexp.MustCompile(`(model|KV|compute) buffer size =\s+([0-9.]+) MiB`)

// buffers returns the last sizes that a server logged, in MiB.
func buffers(t *testing.T, log string) map[string]float64 {
	t.Helper()
	found := map[string]float64{}
	for _, m := range bufferLine.FindAllStringSubmatch(log, -1) {
		size, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		found[m[1]] = size
	}
	if len(found) < 3 {
		t.Fatalf("the server logs the buffers %v", found)
	}
	return found
}

// embeddings are the weights that stay in the host's memory where others are on a
// device: 512 tokens of 64 numbers, in MiB.
const embeddings = 512 * 64 * 4.0 / (1 << 20)

// TestEstimateLlama holds estimates to what a real llama-server takes on a CPU. Of
// weights and keys that is what it would take on a device, but for the embeddings; the
// batch is computed in a buffer that has the embeddings' rows beside the others, twice.
func TestEstimateLlama(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	files := map[string]string{"chat.gguf": shared(t, "models/stories260K.gguf"), "slow.gguf": slowFile(t)}
	dir := l.models(files)
	for _, c := range []struct {
		file, args string
		load       estimate.Load
	}{
		{"chat.gguf", "-c 2048 -np 1 -fa on", estimate.Load{Context: 2048}},
		{"chat.gguf", "-c 2000 -np 3 -fa on", estimate.Load{Context: 2000, Parallel: 3}},
		{"chat.gguf", "-c 4096 -np 2 -fa off", estimate.Load{Context: 4096, Parallel: 2, FlashAttention: "off"}},
		{"slow.gguf", "-c 4096 -np 4 -fa on", estimate.Load{Context: 4096, Parallel: 4}},
		{"slow.gguf", "-c 4096 -np 2 -fa on -ub 1024", estimate.Load{Context: 4096, Parallel: 2, UBatch: 1024}},
		{"slow.gguf", "-c 4096 -np 2 -fa off -ctk f32 -ctv f32", estimate.Load{Context: 4096, Parallel: 2, KVType: "f32", FlashAttention: "off"}},
	} {
		m, err := estimate.Read(t.Context(), files[c.file])
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Estimate(c.load)
		if err != nil {
			t.Fatal(err)
		}
		url, p := l.start(append([]string{"-lv", "4", "-m", dir + "/" + c.file}, strings.Fields(c.args)...)...)
		l.up(url)
		p.says("listening") // it has printed all that came before
		want, memory := buffers(t, p.output()), mib(schemas.Bytes(p.rss()))
		p.signal(syscall.SIGKILL)
		<-p.done
		t.Logf("%s %-40s  weights %.2f of %.2f, kv %.2f of %.2f, compute %.2f of %.2f, all %.2f; the process %.2f MiB", c.file, c.args,
			mib(got.Weights), want["model"], mib(got.KV), want["KV"], mib(got.Compute), want["compute"], mib(got.Buffers()), memory)
		rows := 2 * embeddings * float64(max(512, c.load.UBatch)) / 512 // as wide as the table, and one for each token of a batch
		for _, part := range []struct {
			name            string
			got, want, near float64 // MiB
		}{
			{"weights", mib(got.Weights), want["model"] - embeddings, 0.02}, // what is logged has two decimals
			{"keys and values", mib(got.KV), want["KV"], 0.01},
			{"the batch", mib(got.Compute), want["compute"] - rows, 0.1},
		} {
			if math.Abs(part.got-part.want) > part.near {
				t.Errorf("%s %s: %s: %.2f MiB, measured %.2f", c.file, c.args, part.name, part.got, part.want)
			}
		}
		if kept := mib(got.Weights + got.KV); kept > memory { // the batch's buffer has pages that nothing was written to yet
			t.Errorf("%s %s: %.2f MiB of weights and keys are more than the process has: %.2f", c.file, c.args, kept, memory)
		}
	}
}

func mib(b schemas.Bytes) float64 { return float64(b) / float64(schemas.MiB) }
