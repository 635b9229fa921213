package dispatcher

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// TestReports: however many read at a time, what a node says is read by one of them, in
// order. Nothing is left out but states that the node's next state came after.
func TestReports(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newReports()
		said := map[string][]string{} // by node, as "what number"
		read := map[string][]string{}
		var readers []string // the nodes that are being read
		take := func() {
			node, all, _ := r.take()
			if slices.Contains(readers, node) {
				t.Fatalf("%s is read twice at a time", node)
			}
			readers = append(readers, node)
			for _, m := range all {
				if nodeOf(m) != node {
					t.Fatalf("%s among what %s said", m.Subject, node)
				}
				read[node] = append(read[node], m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]+" "+string(m.Data))
			}
		}
		took := func(i int) {
			r.took(readers[i])
			readers = slices.Delete(readers, i, i+1)
		}
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"say": func(t *rapid.T) {
				node, what := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node"), rapid.SampledFrom([]string{"state", "done"}).Draw(t, "what")
				n++
				said[node] = append(said[node], fmt.Sprint(what, " ", n))
				r.put(&nats.Msg{Subject: schemas.NodeSubject(node, what), Data: []byte(strconv.Itoa(n))})
			},
			"take": func(*rapid.T) {
				if len(r.order) > 0 { // else it would wait
					take()
				}
			},
			"took": func(t *rapid.T) {
				if len(readers) > 0 {
					took(rapid.IntRange(0, len(readers)-1).Draw(t, "reader"))
				}
			},
		})
		for len(r.order)+len(readers) > 0 {
			if len(readers) > 0 {
				took(0)
			} else {
				take()
			}
		}
		for node, all := range said {
			rest := read[node]
			for i, s := range all {
				switch {
				case len(rest) > 0 && rest[0] == s:
					rest = rest[1:]
				case !strings.HasPrefix(s, "state") || i+1 == len(all) || !strings.HasPrefix(all[i+1], "state"):
					t.Fatalf("%s said %v, of which %v was read", node, all, read[node])
				}
			}
			if len(rest) > 0 {
				t.Fatalf("%s said %v, of which %v was read", node, all, read[node])
			}
		}
		r.close()
		if _, _, ok := r.take(); ok {
			t.Fatal("there is more after the end")
		}
	})
}
