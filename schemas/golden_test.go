package schemas

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files: a diff there is a change of the protocol")

var (
	goldenRun    = Run{Node: "gpu-1", Backend: "ollama", Attempt: 2, QueuedMS: 12, LoadMS: 3400, TTFTMS: 3600, TotalMS: 9000, TokensPerSec: 87.5}
	goldenError  = &Error{Message: "messages.0.role: is missing", Type: "invalid_request_error", Code: InvalidRequest, Param: "messages.0.role"}
	goldenTime   = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	goldenFilter = Filter{Class: Batch, Model: "qwen3:*"}
	goldenPause  = Pause{Filter: goldenFilter, By: "ana@desk", Since: goldenTime}
	goldenState  = NodeState{
		Node: "gpu-1", Boot: "b7Kq", Seq: 41, At: time.Date(2026, 1, 2, 15, 4, 5, 600_000_000, time.UTC), Version: "0.1.0", Draining: true, DeviceSource: "nvml 580.159.04",
		Devices: []Device{
			{
				ID: "GPU-8a6f", Name: "NVIDIA H100 80GB HBM3", Kind: "cuda", Total: Known(80 * GiB), Used: Known(7 * GiB), Free: Known(72 * GiB), Reserved: Known(GiB),
				Ours: Known(6 * GiB), Others: Known(GiB), Promised: 6 * GiB, Available: Known(62 * GiB), Lacking: MiB, Utilization: new(97), Temperature: new(61), Power: new(412),
			},
			{ID: "MIG-11aa", Name: "NVIDIA GB10", Kind: "cuda", MIG: true, Error: "XID 79: the GPU has fallen off the bus"},
		},
		Backends: []Backend{{
			Name: "ollama", Kind: "ollama", Healthy: true, Error: "slow", Devices: []string{"GPU-8a6f"}, Split: Spread, Loads: true, Price: Price{Input: 0.15, Output: 0.6},
			Models: []Model{{
				Name: "llama3.1:8b", Kinds: []Kind{Chat, Completion}, State: Resident, VRAM: Known(6 * GiB), Need: Known(7 * GiB),
				Slots: 4, Busy: 1, Context: 8192, Digest: "sha256:46e0", LoadMS: 2100,
				NeedFrom: NeedLearned, Estimate: Known(7 * GiB), Learned: Known(7 * GiB), Pinned: true, Devices: map[string]Bytes{"GPU-8a6f": 6 * GiB},
			}},
		}},
		Running:      []RunningJob{{Job: "j1", Tenant: "default", Attempt: 1, Model: "llama3.1:8b", Backend: "ollama"}},
		Reservations: []Reservation{{Model: "qwen3:8b", Backend: "ollama", Devices: map[string]Bytes{"GPU-8a6f": 6 * GiB}, Arrived: Known(2 * GiB), Expires: time.Date(2026, 1, 2, 15, 5, 0, 0, time.UTC)}},
	}
)

// goldens are all wire messages that have a Go type, by the names of their JSON
// Schemas and golden files.
var goldens = map[string]any{
	"accepted":   &Accepted{Node: "gpu-1", Backend: "ollama", WaitedMS: 12, Load: true},
	"run":        &goldenRun,
	"error":      goldenError,
	"failure":    &Failure{Error: goldenError, Run: goldenRun},
	"node-state": &goldenState,
	"job-done":   &JobDone{Node: "gpu-1", Boot: "b7Kq", Job: "j1", Tenant: "default", Attempt: 1, BusyMS: 900, Tokens: 420, Cost: 0.0002, Code: OutOfMemory, RetryMS: -1, Status: StatusError},
	"job-event": &JobEvent{
		Event: JobEventEnded, Job: "j1", Model: "llama3.1:8b", Class: Batch, At: time.Date(2026, 1, 2, 15, 4, 5, 600_000_000, time.UTC), Due: time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC),
		Node: "gpu-1", Backend: "ollama", Attempt: 2, Status: StatusError, Code: OutOfMemory, Tokens: 420, Cost: 0.0002, CustomID: "request 17",
	},
	"offer-answer": &OfferAnswer{Accepted: true, Reason: "no room", Seq: 42, State: &goldenState},
	"job-request":  &JobRequest{Job: "j1", Body: true},
	"job-info":     &JobInfo{Job: "j1", State: JobDelayed, Node: "gpu-1", Backend: "ollama", Model: "llama3.1:8b", Attempt: 1, Due: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)},
	"why": &Why{
		JobInfo: JobInfo{Job: "j1", State: JobQueued, Node: "gpu-1", Backend: "ollama", Model: "llama3.1:8b", Attempt: 1, Due: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)}, Class: Batch, WaitedMS: 252_000, Before: 36, Reason: "llama3.1:8b is not in memory, and needs 5.6 GiB",
		Why:  []string{"gpu-1/ollama: needs 5.6 GiB: qwen3:4b is in use, and gives way in 1m48s at the latest"},
		Next: "it is loaded on gpu-1/ollama in about 1m48s, which takes about 12s", ETAMS: new(int64), Fix: []string{"vramjet models ls"},
	},
	"flow-list": &FlowList{
		Flows:  []FlowInfo{{Class: Batch, Model: "llama3.1:8b", Waiting: 12, Running: 2, Paused: true, OldestMS: 4200, Reason: "paused", ETAMS: new(int64), Why: []string{"gpu-1/ollama: is draining"}, Next: "nothing", Fix: []string{"vramjet queue resume"}}},
		Pauses: []Pause{goldenPause},
	},
	"jobs-request": &JobsRequest{Filter: goldenFilter, State: JobQueued, Since: goldenTime, Limit: 100, Before: 41},
	"job-list": &JobList{Next: 17, Jobs: []JobEntry{{
		JobInfo: JobInfo{Job: "j1", State: JobRunning, Node: "gpu-1", Backend: "ollama", Model: "llama3.1:8b", Attempt: 1, Due: goldenTime},
		Class:   Batch, Code: OutOfMemory, At: goldenTime,
	}}},
	"job-details": &JobDetails{
		JobInfo: JobInfo{Job: "j1", State: JobState(StatusError), Node: "gpu-1", Backend: "ollama", Model: "llama3.1:8b", Attempt: 2, Due: goldenTime},
		Class:   Batch, Submitted: goldenTime, Ended: goldenTime.Add(9 * time.Second), Headers: map[string]string{"Vj-Timeout": "90s"},
		Run: &goldenRun, Failure: goldenError, Body: json.RawMessage(`"Why is the sky blue?"`),
	},
	"pause-request":   &PauseRequest{Filter: goldenFilter, By: "ana@desk"},
	"pause-list":      &PauseList{Pauses: []Pause{goldenPause}},
	"purge-request":   &PurgeRequest{Filter: goldenFilter, Prefix: "batch_7-", Running: true, DryRun: true, From: 17, Through: 41},
	"purge-step":      &PurgeStep{Waiting: 256, Running: 2, Next: 300, Through: 4100},
	"api-error":       &APIError{Error: goldenError},
	"control-request": &ControlRequest{Do: "load", Backend: "ollama", Model: "llama3.1:8b"},
	"cancel":          &Cancel{Attempt: 2, Void: true},
	"rpc-model-list": &RPCModelList{Models: []RPCModel{{
		Name: "upper", Kinds: []Kind{Chat, Embedding}, State: Installed, VRAM: Known(6 * GiB), Need: Known(7 * GiB),
		Slots: 4, Context: 8192, Digest: "sha256:46e0", Abilities: []string{"tools"},
	}}},
	"learned-need": &LearnedNeed{
		Model: "llama3.1:8b", Digest: "sha256:46e0", Kind: "ollama", Version: "0.30.0", Context: 32768, Parallel: 4,
		Samples: []Bytes{6 * GiB, 7 * GiB}, P95: 7 * GiB, Estimate: Known(7 * GiB), At: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
	},
	"batch-record": &BatchRecord{
		Batch: "batch_k2j5", Tenant: "default", State: BatchInProgress, Class: Batch, Input: "prompts.jsonl", SHA256: strings.Repeat("0", 64), Lines: 12, Jobs: 11,
		Models: map[string]int{"llama3.1:8b": 11}, Created: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), Keep: "168h0m0s", Round: 1, OK: 5, Failed: 1, At: time.Date(2026, 1, 2, 15, 4, 9, 0, time.UTC),
	},
	"batch-event":         &BatchEvent{Event: "completed", Batch: "batch_k2j5", Input: "prompts.jsonl", Jobs: 11, OK: 10, Failed: 1, At: time.Date(2026, 1, 2, 15, 4, 9, 0, time.UTC)},
	"victim":              &Victim{Backend: "ollama", Model: "llama3.1:8b"},
	"rpc-model-request":   &RPCModelRequest{Model: "upper"},
	"rpc-pressure-report": &RPCPressureReport{Running: new(2), Waiting: new(1), Slots: 4, KVUsed: new(0.25)},
	"rpc-error":           &RPCError{Error: RPCFailure{Message: "no room", Type: "server_error", Code: "out_of_memory", Param: "model", RetryAfterMS: 1500}},
}

// Messages that OpenAI's API defines: they have golden files, and no Go type.
var openAI = []string{"chat", "completion", "embedding", "chunk", "end"}

func TestGoldenFiles(t *testing.T) {
	for name, message := range goldens {
		t.Run(name, func(t *testing.T) {
			text := encode(t, message)
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), string(text)); diff != "" {
				t.Errorf("encoded, it differs from its golden file (-golden +got):\n%s", diff)
			}
			back := reflect.New(reflect.TypeOf(message).Elem()).Interface()
			if err := json.Unmarshal(golden, back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(message, back); diff != "" {
				t.Errorf("decoded, it differs (-want +got):\n%s", diff)
			}
			if err := validate(name, golden); err != nil {
				t.Errorf("against its schema: %v", err)
			}
		})
	}
}

func TestGoldenFilesOfOpenAI(t *testing.T) {
	for _, name := range openAI {
		golden, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(name, golden); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every schema has a golden file, and every golden file a schema.
func TestEverySchemaHasAGoldenFile(t *testing.T) {
	all, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	var schemas, files []string
	for name := range all {
		if name != "request" { // what chat, completion and embedding share
			schemas = append(schemas, name)
		}
	}
	paths, _ := filepath.Glob("testdata/*.json")
	for _, p := range paths {
		files = append(files, strings.TrimSuffix(filepath.Base(p), ".json"))
	}
	wantSame(t, schemas, files)
	for name := range goldens {
		files = slices.DeleteFunc(files, func(f string) bool { return f == name })
	}
	wantSame(t, files, openAI)
}

// Every field of a message is set in its golden file, so the file shows it.
func TestGoldenFilesShowEveryField(t *testing.T) {
	for name, message := range goldens {
		shown := map[string]bool{}
		showFields(reflect.ValueOf(message), shown)
		for field, set := range shown {
			if !set {
				t.Errorf("%s: the golden file does not show %s", name, field)
			}
		}
	}
}

// Every type that is marshalled is in a golden file.
func TestEveryMessageHasAGoldenFile(t *testing.T) {
	shown := map[string]bool{}
	for _, message := range goldens {
		showFields(reflect.ValueOf(message), shown)
	}
	for _, file := range []string{"api.go", "control.go", "errors.go", "event.go", "node.go", "rpc.go"} {
		for name, typ := range structTypes(t, file) {
			tagged := slices.ContainsFunc(typ.Fields.List, func(f *ast.Field) bool { return f.Tag != nil })
			in := slices.ContainsFunc(slices.Collect(maps.Keys(shown)), func(field string) bool { return strings.HasPrefix(field, name+".") })
			if tagged && !in && name != "Usage" { // a part of OpenAI's answers
				t.Errorf("%s: no golden file has a %s", file, name)
			}
		}
	}
}

// structTypes returns the struct types of a file of this package by their names.
func structTypes(t *testing.T, file string) map[string]*ast.StructType {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*ast.StructType{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if typ, ok := spec.Type.(*ast.StructType); ok {
				found[spec.Name.Name] = typ
			}
		}
		return true
	})
	return found
}

// showFields notes for each field on the wire whether it is set anywhere in v.
func showFields(v reflect.Value, shown map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			showFields(v.Elem(), shown)
		}
	case reflect.Slice:
		for i := range v.Len() {
			showFields(v.Index(i), shown)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() || v.Type() == reflect.TypeFor[Amount]() {
			return
		}
		for f, value := range v.Fields() {
			if f.Tag.Get("json") == "-" {
				continue
			}
			if f.Anonymous {
				showFields(value, shown)
				continue
			}
			key := v.Type().Name() + "." + f.Name
			shown[key] = shown[key] || !value.IsZero()
			showFields(value, shown)
		}
	default: // nothing in it
	}
}

// The members of each message, and which of them are optional, are the same in
// Go and in its JSON Schema.
func TestSchemasMatchTheTypes(t *testing.T) {
	for name, message := range goldens {
		s := readSchema(t, name)
		compareMembers(t, name, reflect.TypeOf(message).Elem(), s)
		defs, _ := s["$defs"].(map[string]any)
		for def, typ := range map[string]any{"device": Device{}, "backend": Backend{}, "model": Model{}, "running": RunningJob{}, "reservation": Reservation{}, "flow": FlowInfo{}, "entry": JobEntry{}, "pause": Pause{}, "served": RPCModel{}, "failed": RPCFailure{}} {
			if d, ok := defs[def].(map[string]any); ok {
				compareMembers(t, def, reflect.TypeOf(typ), d)
			}
		}
	}
}

func compareMembers(t *testing.T, name string, typ reflect.Type, schema map[string]any) {
	t.Helper()
	var members, required []string
	for _, f := range reflect.VisibleFields(typ) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" || f.Anonymous {
			continue
		}
		members = append(members, tag)
		if options == "" {
			required = append(required, tag)
		}
	}
	var inSchema, requiredThere []string
	for member := range schema["properties"].(map[string]any) {
		inSchema = append(inSchema, member)
	}
	for _, member := range schema["required"].([]any) {
		requiredThere = append(requiredThere, member.(string))
	}
	t.Log(name)
	wantSame(t, members, inSchema)
	wantSame(t, required, requiredThere)
}

func TestSchemasRefuse(t *testing.T) {
	for _, c := range []struct{ name, message string }{
		{"accepted", `{"node":"a.b","backend":"x","waited_ms":0,"load":true}`},
		{"accepted", `{"node":"a","backend":"x","waited_ms":-1,"load":true}`},
		{"failure", `{"error":{"message":"x","type":"y","code":"no_such_code"},"vramjet":{"attempt":0,"queued_ms":0,"load_ms":0,"ttft_ms":0,"total_ms":0,"tokens_per_s":0}}`},
		{"node-state", strings.Replace(string(encode(t, &goldenState)), `"devices": [`, `"devices": null, "x": [`, 1)},
		{"node-state", strings.Replace(string(encode(t, &goldenState)), `2026-01-02T15:04:05.6Z`, `yesterday`, 1)},
		{"end", `{"object":"list","model":"m","usage":{"prompt_tokens":1,"total_tokens":1},"vramjet":{"attempt":1,"queued_ms":0,"load_ms":0,"ttft_ms":0,"total_ms":0,"tokens_per_s":0}}`},
		{"chunk", `{"id":"x"}`},
		{"job-request", `{"job":"a b"}`},
		{"job-info", `{"job":"a","state":"lost"}`},
		{"control-request", `{"do":"explode"}`},
		{"cancel", `{"attempt":-1}`},
		{"job-event", `{"event":"lost","job":"a","at":"2026-01-02T15:04:05Z"}`},
		{"job-event", `{"event":"queued","job":"a"}`},
		{"job-done", `{}`},
		{"rpc-model-list", `{"models":[{"name":""}]}`},
		{"rpc-model-list", `{"models":[{"name":"m","state":"asleep"}]}`},
		{"rpc-model-request", `{}`},
		{"rpc-pressure-report", `{"kv_used":2}`},
		{"rpc-error", `{"error":{"code":"auth"}}`},
		{"offer-answer", `{"accepted":1,"seq":1}`},
		{"jobs-request", `{"state":"ok"}`},
		{"jobs-request", `{"limit":1001}`},
		{"job-list", `{"jobs":[{"job":"j1"}]}`},
		{"job-details", `{"job":"j1","state":"queued","ended":"soon"}`},
		{"pause-request", `{"class":"urgent"}`},
		{"pause-list", `{"pauses":[{"model":"m"}]}`},
		{"purge-request", `{"prefix":"a b"}`},
		{"purge-step", `{"waiting":-1,"running":0,"through":1}`},
	} {
		if err := validate(c.name, []byte(c.message)); err == nil || AsError(err).Code != InvalidRequest {
			t.Errorf("%s: %s: got %v, want invalid_request", c.name, c.message, err)
		}
	}
}

// Lists are never null, whatever the sender left out.
func TestEmptyStateIsValid(t *testing.T) {
	s := NodeState{Node: "n", Boot: "b", Backends: []Backend{{Name: "x", Kind: "sim", Split: Spread, Models: []Model{{Name: "m", State: Installed}}}}, Reservations: []Reservation{{Model: "m", Backend: "x"}}}
	if err := validate("node-state", encode(t, s)); err != nil {
		t.Error(err)
	}
	for _, v := range []any{&NodeState{Node: "n", Boot: "b"}, Why{}, FlowList{}, JobList{}, PauseList{}} {
		if text := encode(t, v); bytes.Contains(text, []byte("null")) {
			t.Errorf("an empty %T has a null: %s", v, text)
		}
	}
}

func TestEveryCodeHasAVerdict(t *testing.T) {
	consts := stringConsts(t, "errors.go") // of the type Code, all of them
	codes := slices.Collect(maps.Values(consts))
	var judged, inSchema []string
	for code := range verdicts {
		judged = append(judged, string(code))
	}
	for _, code := range readSchema(t, "error")["properties"].(map[string]any)["code"].(map[string]any)["enum"].([]any) {
		inSchema = append(inSchema, code.(string))
	}
	wantSame(t, codes, judged)
	wantSame(t, codes, inSchema)
	for code, v := range verdicts {
		if v.Type == "" {
			t.Errorf("%s has no type", code)
		}
	}
	if Code("no_such_code").Verdict() != Internal.Verdict() {
		t.Error("an unknown code is not judged as internal")
	}
}

func readSchema(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := schemaFiles.ReadFile("jsonschema/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wantSame compares two lists whose order means nothing.
func wantSame(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
