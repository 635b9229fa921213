package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

func TestReadTrace(t *testing.T) {
	normal := Job{Tenant: "default", Class: schemas.Normal}
	job := func(at time.Duration, prompt, generated int) Job {
		j := normal
		j.At, j.Prompt, j.Generated = at, prompt, generated
		return j
	}
	for _, c := range []struct {
		name, csv string
		want      []Job
	}{
		{
			"Azure 2023", "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8",
			[]Job{job(0, 4808, 10), job(52*time.Millisecond, 3180, 8)},
		},
		{
			"Azure 2024", "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.109930+00:00,2399,6\n",
			[]Job{job(0, 2162, 5), job(100*time.Millisecond, 2399, 6)},
		},
		{
			"BurstGPT", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n",
			[]Job{
				{0, "default", schemas.Normal, "ChatGPT", 472, 18},
				{40 * time.Second, "default", schemas.Normal, "GPT-4", 1087, 230},
			},
		},
		{
			"every column, in disorder, with a BOM",
			"\ufeff\"At\", Class ,tenant,MODEL,prompt-tokens,note,Generated\n" +
				"10.25,batch,b,llama3.1:8b,1,\"a, \"\"b\"\"\nc\",2\n\n 8 , interactive , a , hf.co/org/m , 3 ,, 4 \n8,,,,0,,0\n",
			[]Job{
				{0, "a", schemas.Interactive, "hf.co/org/m", 3, 4},
				{0, "default", schemas.Normal, "", 0, 0},
				{2250 * time.Millisecond, "b", schemas.Batch, "llama3.1:8b", 1, 2},
			},
		},
		{
			"offsets", "time,prompt,output_tokens\n2026-01-01T01:00:00+01:00,1,1\n2026-01-01T00:00:01Z,2,2\n2026-01-01 00:00:02,3,3\n",
			[]Job{job(0, 1, 1), job(time.Second, 2, 2), job(2*time.Second, 3, 3)},
		},
		{"seconds before zero", "at,prompt,generated\n-1,1,1\n1e-1,2,2\n", []Job{job(0, 1, 1), job(1100*time.Millisecond, 2, 2)}},
		{"since 1970", "at,prompt,generated\n1700000000.5,1,1\n1700000001.75,2,2\n", []Job{job(0, 1, 1), job(1250*time.Millisecond, 2, 2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadTrace(strings.NewReader(c.csv))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadTraceRefuses(t *testing.T) {
	const header = "at,prompt,generated,class,tenant,model\n"
	long := strings.Repeat("x", 2*maxLine)
	for _, c := range []struct{ csv, want string }{
		{"", "the trace is empty: its first line has to name the columns"},
		{"\ufeff\n\n", "the trace is empty: its first line has to name the columns"},
		{header, "the trace is empty: below the names of its columns, there is no job"},
		{"0,1,2\n", "line 1: no column is called timestamp, time, at"},
		{"\nat,generated\n", "line 2: no column is called prompttokens, contexttokens, prompt, inputtokens, requesttokens"},
		{"at,prompt\n", "line 1: no column is called generatedtokens, generated, outputtokens, responsetokens"},
		{"at,prompt,generated,Time Stamp\n", `line 1: the columns "at" and "Time Stamp" mean the same: leave one out`},
		{"at,prompt,generated\n0,1,1\n0,1\n", "line 3: it has 2 values, and there are 3 columns"},
		{"at,prompt,generated\n0,1,1\n\n0,1,1,1\n", "line 4: it has 4 values, and there are 3 columns"},
		{header + "x,1,1,,,\n", `line 2: the time "x" is none: want one like 2006-01-02T15:04:05Z or 2006-01-02 15:04:05.999, or seconds`},
		{header + ",1,1,,,\n", `line 2: the time "" is none`},
		{header + "2026-02-30 00:00:00,1,1,,,\n", `line 2: the time "2026-02-30 00:00:00" is none`},
		{header + "NaN,1,1,,,\n", `line 2: the time "NaN" is out of range: want seconds`},
		{header + "1700000000000,1,1,,,\n", `line 2: the time "1700000000000" is out of range: want seconds`},
		{header + "2026-01-01 00:00:00,1,1,,,\n0,1,1,,,\n", `line 3: the time "0" is over 10 years away from that of the first job`},
		{header + "0001-01-01 00:00:00,1,1,,,\n9999-01-01 00:00:00,1,1,,,\n", "line 3: the time"},
		{header + "0,-1,1,,,\n", `line 2: the tokens of the prompt: "-1": want a whole number from 0 to 10000000`},
		{header + "0,1,10000001,,,\n", `line 2: the generated tokens: "10000001": want a whole number from 0 to 10000000`},
		{header + "0,1,99999999999999999999,,,\n", `line 2: the generated tokens: "99999999999999999999": want`},
		{header + "0,1.5,1,,,\n", `line 2: the tokens of the prompt: "1.5": want`},
		{header + "0,,1,,,\n", `line 2: the tokens of the prompt: "": want`},
		{header + "0,1,1,Batch,,\n", `line 2: the class "Batch" is none of interactive, normal and batch`},
		{header + "0,1,1,,a.b,\n", `line 2: the tenant "a.b" is not 1 to 64 characters`},
		{header + "0,1,1,,," + strings.Repeat("m", schemas.MaxModelBytes+1) + "\n", "line 2: the model name is 201 bytes long"},
		{header + "0,1,1,,,\n0,\"1,1,,,\n", `line 3: extraneous or missing " in quoted-field`},
		{header + "0,1\"1,1,,,\n", `line 2: bare " in non-quoted-field`},
		{header + "0,1,1,,,\n0,1,1,,,\"" + long + "\n", "after line 2: a line of over 65536 bytes: is a quote never closed?"},
		{header + "0,1,1,,," + long + "\n", "after line 1: a line of over 65536 bytes"},
		{long + "\n", "after line 0: a line of over 65536 bytes"},
	} {
		jobs, err := ReadTrace(strings.NewReader(c.csv))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.80q: %v, %v, want the error %q", c.csv, jobs, err, c.want)
		}
	}
	broken := errors.New("the disk broke")
	text := io.MultiReader(strings.NewReader(header), iotest.ErrReader(broken))
	if _, err := ReadTrace(text); !errors.Is(err, broken) {
		t.Errorf("the reader's error became %v", err)
	}
}

// A quote that is never closed doesn't make the rest of a file one line in memory.
func TestReadTraceIsBounded(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("at,prompt,generated\n0,1,\""), endlessly('\n'))
	if _, err := ReadTrace(endless); !errors.Is(err, errLong) {
		t.Errorf("%v, want %v", err, errLong)
	}
}

// endlessly is a file of one byte, over and over.
type endlessly byte

func (e endlessly) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestReadTraceOfAzure(t *testing.T) {
	shared := os.Getenv("VRAMJET_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(shared, "data", "azure_llm_code_2023.csv"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no azure_llm_code_2023.csv: set VRAMJET_SHARED to the directory above its data directory")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	jobs, err := ReadTrace(file)
	if err != nil {
		t.Fatal(err)
	}
	last := jobs[len(jobs)-1]
	want := Job{3435948056 * time.Microsecond, "default", schemas.Normal, "", 549, 173}
	if len(jobs) != 8819 || last != want {
		t.Errorf("%d jobs, the last %+v, want 8819 and %+v", len(jobs), last, want)
	}
}

// What is written in any of the forms is read back.
func TestReadTraceRoundTrip(t *testing.T) {
	flow := drawFlow()
	rapid.Check(t, func(t *rapid.T) {
		jobs := make([]Job, rapid.IntRange(1, 20).Draw(t, "jobs"))
		at := time.Duration(0)
		for i := range jobs {
			f := flow.Draw(t, "flow")
			jobs[i] = Job{at, f.Tenant, f.Class, f.Model, rapid.IntRange(0, maxTokens).Draw(t, "prompt"), rapid.IntRange(0, maxTokens).Draw(t, "generated")}
			at += time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "gap"))
		}
		got, err := ReadTrace(strings.NewReader(write(t, jobs)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(jobs, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// drawFlow draws flows, with names that CSV has to quote.
func drawFlow() *rapid.Generator[schemas.Flow] {
	return rapid.Custom(func(t *rapid.T) schemas.Flow {
		model := rapid.StringN(0, 20, schemas.MaxModelBytes).Draw(t, "model")
		model = strings.TrimSpace(strings.ReplaceAll(model, "\r", "")) // as CSV and ReadTrace do
		return schemas.Flow{
			Tenant: rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "tenant"),
			Class:  rapid.SampledFrom(schemas.Classes).Draw(t, "class"),
			Model:  model,
		}
	})
}

// write makes a trace of jobs, in one of its forms.
func write(t *rapid.T, jobs []Job) string {
	t.Helper()
	names := [columns]string{}
	for i, spellings := range columnNames {
		names[i] = rapid.SampledFrom(spellings).Draw(t, "name")
		if rapid.Bool().Draw(t, "shout") {
			names[i] = strings.ToUpper(names[i][:1]) + "_ -" + names[i][1:]
		}
	}
	order := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, -1}).Draw(t, "order") // -1: a column of another meaning
	format := rapid.SampledFrom([]func(time.Duration) string{
		func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) },
		func(d time.Duration) string { return time.Unix(1700000000, 0).Add(d).UTC().Format(time.RFC3339Nano) },
		func(d time.Duration) string {
			return time.Unix(1700000000, 0).Add(d).UTC().Format("2006-01-02 15:04:05.000000000")
		},
	}).Draw(t, "format")
	var text strings.Builder
	if rapid.Bool().Draw(t, "bom") {
		text.WriteString("\ufeff")
	}
	w := csv.NewWriter(&text)
	w.UseCRLF = rapid.Bool().Draw(t, "crlf")
	line := make([]string, len(order))
	for i, c := range order {
		if line[i] = "other"; c >= 0 {
			line[i] = names[c]
		}
	}
	w.Write(line)
	for _, j := range jobs {
		values := [columns]string{format(j.At), strconv.Itoa(j.Prompt), strconv.Itoa(j.Generated), j.Model, j.Tenant, string(j.Class)}
		for i, c := range order {
			if line[i] = "x"; c >= 0 {
				line[i] = values[c]
			}
		}
		w.Write(line)
	}
	w.Flush()
	return text.String()
}

func FuzzReadTrace(f *testing.F) {
	for _, seed := range []string{
		"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n",
		"\ufeffat,prompt,generated,class,tenant,model\n1e3,1,2,batch,a,llama3.1:8b\n-0.5,0,0,,,\"m\"\"\"\n",
		"time,prompt_tokens,output-tokens\n2026-01-01T00:00:00.5+01:00,1,2\n",
		"at,prompt,generated\n0,\"1\n",
		"at,at\n",
		"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		jobs, err := ReadTrace(strings.NewReader(text))
		if err != nil {
			if jobs != nil {
				t.Errorf("jobs beside the error %v", err)
			}
			return
		}
		if err := checkJobs(jobs); err != nil || len(jobs) == 0 || jobs[0].At != 0 {
			t.Errorf("%d jobs: %v", len(jobs), err)
		}
	})
}

// checkJobs returns what no workload may have.
func checkJobs(jobs []Job) error {
	for i, j := range jobs {
		if err := checkFlow(schemas.Flow{Tenant: j.Tenant, Class: j.Class, Model: j.Model}); err != nil {
			return err
		}
		if j.At < 0 || j.At > 2*maxSpan || min(j.Prompt, j.Generated) < 0 || max(j.Prompt, j.Generated) > maxTokens {
			return fmt.Errorf("job %d is out of range: %+v", i, j)
		}
	}
	if !slices.IsSortedFunc(jobs, func(a, b Job) int { return int(a.At - b.At) }) {
		return errors.New("the jobs aren't in the order of time")
	}
	return nil
}

func BenchmarkReadTrace(b *testing.B) {
	var text strings.Builder
	text.WriteString("TIMESTAMP,ContextTokens,GeneratedTokens\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "2023-11-16 18:%02d:%02d.9799600,%d,10\n", i/60%60, i%60, i)
	}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadTrace(strings.NewReader(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}
