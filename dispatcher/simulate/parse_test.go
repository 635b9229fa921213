package simulate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

func TestParseWorkload(t *testing.T) {
	for _, c := range []struct {
		text string
		want generator
	}{
		{
			"poisson:rate=2/s,for=10m,tenant=a,class=interactive,prompt=500,generated=100",
			generator{
				shape: Shape{Tenant: "a", Class: schemas.Interactive, Prompt: 500, Generated: 100},
				base:  2, peak: 2, every: 10 * time.Minute, length: 10 * time.Minute,
			},
		},
		{"poisson:for=1h,rate=36/h", generator{base: 0.01, peak: 0.01, every: time.Hour, length: time.Hour}},
		{
			"bursts:base=0,peak=5,every=2m,for=1h30m,model=llama3.1:8b,model=qwen3:4b,zipf=1.1,at=0",
			generator{
				shape: Shape{Models: []string{"llama3.1:8b", "qwen3:4b"}, Zipf: 1.1},
				peak:  5, every: 2 * time.Minute, length: 90 * time.Minute,
			},
		},
		{"bursts:base=30/m,peak=60/m,every=2m,for=1m", generator{base: 0.5, peak: 1, every: 2 * time.Minute, length: time.Minute}},
		{"flood:n=30000,class=batch,at=60s", generator{shape: Shape{At: time.Minute, Class: schemas.Batch}, n: 30_000}},
	} {
		got, err := parseGenerator(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if diff := cmp.Diff(c.want, *got, cmp.AllowUnexported(generator{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, diff)
		}
	}
}

// A workload that is parsed is the one that the functions make.
func TestParseWorkloadMakesJobs(t *testing.T) {
	shape := Shape{At: time.Second, Tenant: "a", Models: []string{"m"}}
	for text, want := range map[string][]Job{
		"poisson:rate=2/s,for=10m,at=1s,tenant=a,model=m":                  shape.Poisson(2, 10*time.Minute, 7),
		"bursts:base=1,peak=3,every=1m,for=10m,at=1s,tenant=a,model=m":     shape.Bursts(1, 3, time.Minute, 10*time.Minute, 7),
		"flood:n=5,at=1s,tenant=a,model=m":                                 shape.Flood(5, 7),
		"flood:tenant=a,model=m,at=1s,n=5,prompt=500,generated=100,zipf=0": shape.Flood(5, 7),
	} {
		jobs, err := ParseWorkload(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := jobs(7); len(got) == 0 || !slices.Equal(got, want) {
			t.Errorf("%q: %d jobs, not the %d that were wanted", text, len(got), len(want))
		}
	}
}

func TestParseWorkloadRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", `"" is no generator: want poisson, bursts or flood, then ':' and its keys`},
		{"rate=2", `"rate=2" is no generator`},
		{"Poisson:rate=2", `"Poisson" is no generator`},
		{"poisson", "rate is missing: poisson needs rate, for"},
		{"poisson:", "rate is missing: poisson needs rate, for"},
		{"poisson:rate=2", "for is missing: poisson needs rate, for"},
		{"bursts:base=1,peak=2,for=1m", "every is missing: bursts needs base, peak, every, for"},
		{"flood:at=1s", "n is missing: flood needs n"},
		{"flood:n", `"n": want key=value`},
		{"flood:n=1,", `"": want key=value`},
		{"flood:n=1,rate=2", `flood has no key "rate": want n, at, tenant, class, model, zipf, prompt, generated`},
		{"poisson:n=1", `poisson has no key "n": want rate, for, at,`},
		{"flood:n=1, at=1s", `flood has no key " at"`},
		{"flood:n=1,n=2", "n is there twice"},
		{"flood:n=0", `n: "0": want a whole number from 1 to 5000000`},
		{"flood:n=5000001", `n: "5000001": want a whole number from 1 to 5000000`},
		{"flood:n=1,prompt=0", `prompt: "0": want a whole number from 1 to 10000000`},
		{"flood:n=1,generated=1.5", `generated: "1.5": want a whole number`},
		{"flood:n=1,zipf=-1", `zipf: "-1": want a number from 0 to 10`},
		{"flood:n=1,zipf=NaN", `zipf: "NaN": want a number from 0 to 10`},
		{"flood:n=1,at=-1s", `at: "-1s": want a time like 90s, 10m or 1h30m`},
		{"flood:n=1,at=10", `at: "10": want a time like`},
		{"flood:n=1,class=bulk", `the class "bulk" is none of interactive, normal and batch`},
		{"flood:n=1,tenant=a.b", `the tenant "a.b" is not 1 to 64 characters`},
		{"flood:n=1,model=", "the model name is empty"},
		{"poisson:rate=2/d,for=1m", `rate: "2/d": want jobs a second, minute or hour, like 2/s, 30/m or 100/h`},
		{"poisson:rate=2/,for=1m", `rate: "2/": want jobs a second`},
		{"poisson:rate=-2,for=1m", `rate: "-2": want jobs a second`},
		{"poisson:rate=NaN,for=1m", `rate: "NaN": want jobs a second`},
		{"poisson:rate=Inf,for=1m", `rate: "Inf": want jobs a second`},
		{"poisson:rate=2,for=0", `for: "0": want a time like`},
		{"poisson:rate=2,for=1000000h", `for: "1000000h": want a time like`},
		{"poisson:rate=0,for=1m", "it makes no job: want a rate above 0"},
		{"poisson:rate=1000/s,for=10h", "it may make 3.6e+07 jobs: want 5000000 at most"},
		{"bursts:base=0,peak=1/h,every=1ns,for=1h", "its rate changes every 1ns for 1h0m0s: want 1000000 changes at most"},
	} {
		jobs, err := ParseWorkload(c.text)
		prefix := "workload " + `"` + c.text + `": `
		if err == nil || jobs != nil || !strings.HasPrefix(err.Error(), prefix+c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, prefix+c.want)
		}
	}
}

func ExampleParseWorkload() {
	calm, _ := ParseWorkload("poisson:rate=1/s,for=3s,tenant=a,class=interactive,model=llama3.1:8b")
	flood, _ := ParseWorkload("flood:n=2,at=1s,tenant=b,class=batch,model=qwen3:4b")
	for _, j := range Merge(calm(1), flood(2)) {
		fmt.Printf("%v %s %s %s: %d tokens, then %d\n", j.At.Round(10*time.Millisecond), j.Tenant, j.Class, j.Model, j.Prompt, j.Generated)
	}
	// Output:
	// 470ms a interactive llama3.1:8b: 184 tokens, then 23
	// 600ms a interactive llama3.1:8b: 990 tokens, then 27
	// 630ms a interactive llama3.1:8b: 277 tokens, then 67
	// 800ms a interactive llama3.1:8b: 18 tokens, then 11
	// 1s b batch qwen3:4b: 989 tokens, then 59
	// 1s b batch qwen3:4b: 325 tokens, then 19
	// 1.4s a interactive llama3.1:8b: 416 tokens, then 157
	// 2.86s a interactive llama3.1:8b: 145 tokens, then 309
}

func FuzzParseWorkload(f *testing.F) {
	for _, seed := range []string{
		"poisson:rate=2/s,for=10m,tenant=a,class=interactive,prompt=500,generated=100",
		"bursts:base=30/m,peak=5/s,every=2m,for=1h,model=llama3.1:8b,model=qwen3:4b,zipf=1",
		"flood:n=30000,at=60s,class=batch",
		"flood:n=1,,",
		"poisson:rate=1e999,for=1ns",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := parseGenerator(text)
		if err != nil {
			return
		}
		if n := g.expected(); !(n > 0 && n <= maxJobs) {
			t.Fatalf("%v jobs are expected", n)
		}
		if g.expected() > 10_000 || g.every > 0 && g.length/g.every > 1000 {
			return // takes too long for here
		}
		if err := checkJobs(g.jobs(1)); err != nil {
			t.Error(err)
		}
	})
}
