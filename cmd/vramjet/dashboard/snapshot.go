package dashboard

import (
	"bytes"
	"encoding/json"
	"time"
)

// A snapshot is all that is shown at one moment. It is never changed, so that any
// number of viewers may read it.
type snapshot struct {
	version  uint64
	complete bool // whether everything was asked for once
	at       time.Time
	parts    []part
	nodes    []part
}

// A part is a piece of a snapshot, as JSON, and since which version it is so.
type part struct {
	name    string
	version uint64
	data    []byte
}

// since writes what changed after a version as a JSON object; 0 means all. Of nodes it
// has those that changed; which there are stands in the part node_names.
func (s *snapshot) since(version uint64) []byte {
	var b bytes.Buffer
	b.WriteString(`{"version":`)
	b.Write(encode(s.version))
	b.WriteString(`,"since":`)
	b.Write(encode(version))
	b.WriteString(`,"complete":`)
	b.Write(encode(s.complete))
	b.WriteString(`,"at":`)
	b.Write(encode(s.at))
	for _, p := range s.parts {
		if p.version > version {
			b.WriteString(`,"` + p.name + `":`)
			b.Write(p.data)
		}
	}
	b.WriteString(`,"nodes":[`)
	first := true
	for _, n := range s.nodes {
		if n.version <= version {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.Write(n.data)
	}
	b.WriteString("]}")
	return b.Bytes()
}

// changed returns the part as it is now: the old one where it is the same.
func changed(old part, name string, version uint64, now any) part {
	data := encode(now)
	if old.version > 0 && bytes.Equal(old.data, data) {
		return old
	}
	return part{name, version, data}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("encode what is shown: " + err.Error()) // all of it is text and numbers
	}
	return data
}
