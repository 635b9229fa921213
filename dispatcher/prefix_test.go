package dispatcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// readJob reads a job as the queue delivers it.
func readJob(tb testing.TB, body, session, tenant string) *schemas.Job {
	tb.Helper()
	h := nats.Header{}
	if session != "" {
		h.Set(schemas.HeaderSession, session)
	}
	j, err := schemas.ReadJob(h.Get, []byte(body), schemas.Flow{Tenant: tenant, Class: schemas.Normal, Model: "m"}, 1, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

func completion(text string) string { return fmt.Sprintf(`{"stream":true,"prompt":%q}`, text) }

func TestPrefixKeys(t *testing.T) {
	keys := func(body, session, tenant string) []uint64 { return prefixKeys(readJob(t, body, session, tenant)) }
	long := strings.Repeat("All work and no play. ", 4000) // 88,000 bytes
	for name, c := range map[string]struct {
		body, session string
		want          int
	}{
		"a short prompt":            {completion("hi"), "", 0},
		"one byte less than 1 KiB":  {completion(long[:1<<10-3]), "", 0}, // with its quotes
		"1 KiB":                     {completion(long[:1<<10-2]), "", 1},
		"16 KiB":                    {completion(long[:16<<10]), "", 3},
		"all lengths":               {completion(long), "", 4},
		"a session":                 {completion("hi"), "s", 1},
		"a session of long prompts": {completion(long), "s", 5},
		"a chat":                    {fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, long[:2000]), "", 1},
		"what is no prompt":         {fmt.Sprintf(`{"prompt":"hi","metadata":%q}`, long), "", 0},
		"embeddings":                {fmt.Sprintf(`{"input":%q}`, long), "s", 0},
	} {
		if got := keys(c.body, c.session, "a"); len(got) != c.want {
			t.Errorf("%s has the keys %v, want %d", name, got, c.want)
		}
	}
	a, b := keys(completion(long), "s", "a"), keys(completion(long[:5<<10]+" And then?"), "s", "b")
	if a[0] == b[0] {
		t.Error("two tenants share a session")
	}
	if !slices.Equal(a[3:], b[1:]) {
		t.Errorf("what begins alike has the keys %v and %v", a, b)
	}
	if again := keys(completion(long), "s", "a"); !slices.Equal(a, again) {
		t.Errorf("the same job has the keys %v, and then %v", a, again)
	}
}

// FuzzPrefixKeys: jobs share a key of some length exactly where their prompts are
// alike up to there.
func FuzzPrefixKeys(f *testing.F) {
	f.Add("abc", "x", "y", uint16(1000), "s", false)
	f.Add("\\\"é", "", "tail", uint16(9000), "", true)
	f.Fuzz(func(t *testing.T, common, x, y string, times uint16, session string, chat bool) {
		if len(common) > 100 || len(x)+len(y) > 1000 || session != "" && !schemas.ValidToken(session) {
			t.Skip()
		}
		read := func(tail string) *schemas.Job {
			text := strings.ToValidUTF8(strings.Repeat(common, int(times))+tail, "?")
			m := encode(map[string]any{"prompt": text})
			if chat {
				m = encode(map[string]any{"messages": []map[string]string{{"role": "user", "content": text}}})
			}
			return readJob(t, string(m), session, "a")
		}
		a, b := read(x), read(y)
		ka, kb := prefixKeys(a), prefixKeys(b)
		if session != "" {
			if ka[0] != kb[0] {
				t.Error("one session has two keys")
			}
			ka, kb = ka[1:], kb[1:]
		}
		for i, n := range prefixLengths {
			pa, pb := a.Prompt(), b.Prompt()
			if has := len(ka) > i; has != (len(pa) >= n) {
				t.Fatalf("a prompt of %d bytes has %d keys", len(pa), len(ka))
			}
			if len(pa) < n || len(pb) < n {
				break
			}
			if same := string(pa[:n]) == string(pb[:n]); same != (ka[len(ka)-1-i] == kb[len(kb)-1-i]) {
				t.Errorf("alike up to %d: %t, the keys %v and %v", n, same, ka, kb)
			}
		}
	})
}

func TestPrefixes(t *testing.T) {
	p := newPrefixes(100)
	holds := func(model string, want string, keys ...uint64) {
		t.Helper()
		if got, ok := p.holds(model, keys); got != want || ok != (want != "") {
			t.Errorf("%v of %s is at %q, want %q", keys, model, got, want)
		}
	}
	holds("m", "", 1)
	p.ran("m", []uint64{3, 2, 1}, "a/x")
	p.ran("m", []uint64{4, 1}, "b/x")
	holds("m", "b/x", 1)
	holds("m", "a/x", 9, 2, 1) // the longest that is known
	holds("m", "b/x", 5, 4, 2)
	holds("other", "", 1)
	holds("m", "")
	p.ran("m", []uint64{7}, "aa/x")
	p.lost("a")
	holds("m", "", 3, 2)
	holds("m", "b/x", 1)
	holds("m", "aa/x", 7)
}

// TestPrefixesAreBounded runs prefixes beside a twin that is as slow as it is simple.
func TestPrefixesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 6
		p := newPrefixes(most)
		var twin []lastRun // the newest last
		key := rapid.Uint64Range(0, 9)
		model := rapid.SampledFrom([]string{"m", "n"})
		t.Repeat(map[string]func(*rapid.T){
			"ran": func(t *rapid.T) {
				m, keys := model.Draw(t, "model"), rapid.SliceOfNDistinct(key, 0, 4, rapid.ID).Draw(t, "keys")
				place := rapid.SampledFrom([]string{"a/x", "a/y", "b/x"}).Draw(t, "place")
				p.ran(m, keys, place)
				for _, k := range slices.Backward(keys) {
					twin = slices.DeleteFunc(twin, func(r lastRun) bool { return r.prefix == prefix{m, k} })
					twin = append(twin, lastRun{prefix: prefix{m, k}, place: place})
				}
				twin = twin[max(0, len(twin)-most):]
			},
			"lost": func(t *rapid.T) {
				node := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")
				p.lost(node)
				twin = slices.DeleteFunc(twin, func(r lastRun) bool { return strings.HasPrefix(r.place, node+"/") })
			},
			"": func(t *rapid.T) {
				if len(p.known) != len(twin) {
					t.Fatalf("%d are known, want %d", len(p.known), len(twin))
				}
				r := &p.ends
				for i := range twin { // the oldest first
					if r = r.newer; r.prefix != twin[i].prefix || r.newer.older != r {
						t.Fatalf("number %d from the oldest is %v, want %v", i, r.prefix, twin[i].prefix)
					}
				}
				m, keys := model.Draw(t, "of"), rapid.SliceOfN(key, 0, 3).Draw(t, "asked")
				want := ""
				for _, k := range keys {
					if i := slices.IndexFunc(twin, func(r lastRun) bool { return r.prefix == prefix{m, k} }); i >= 0 && want == "" {
						want = twin[i].place
					}
				}
				if got, ok := p.holds(m, keys); got != want || ok != (want != "") {
					t.Fatalf("%v of %s is at %q, want %q", keys, m, got, want)
				}
			},
		})
	})
}

func BenchmarkPrefixKeys(b *testing.B) {
	for _, kib := range []int{1, 8, 100} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			j := readJob(b, completion(strings.Repeat("0123456789abcdef", kib<<6)), "s", "a")
			b.ReportAllocs()
			for b.Loop() {
				prefixKeys(j)
			}
		})
	}
}

// BenchmarkPrefixes remembers and asks, with all that can be remembered known.
func BenchmarkPrefixes(b *testing.B) {
	p := newPrefixes(mostPrefixes)
	next := uint64(0)
	step := func() {
		keys := []uint64{next, next + 1, next + 2}
		next += 3
		p.ran("m", keys, "node/backend")
		p.holds("m", keys)
	}
	for range mostPrefixes {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}
