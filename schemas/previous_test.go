package schemas

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// What the previous version of vramjet said and understood is in testdata/previous: its
// golden files and its JSON Schemas. A version that is released leaves its own there.
// Where one of these tests fails, the two versions do not work side by side, as they do
// in every upgrade: keep what the previous one needs, or change the protocol's version.
const previous = "testdata/previous"

// TestPreviousMessagesAreRead: nothing of what the previous version says is lost.
func TestPreviousMessagesAreRead(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(previous, "messages", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no messages: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(name, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		message, ok := goldens[name]
		if !ok { // one that OpenAI defines
			continue
		}
		read := reflect.New(reflect.TypeOf(message).Elem()).Interface()
		if err := json.Unmarshal(text, read); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var said, heard any
		if err := json.Unmarshal(text, &said); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encode(t, read), &heard); err != nil {
			t.Fatal(err)
		}
		if lost := missing(said, heard, name); lost != "" {
			t.Errorf("%s is not read", lost)
		}
	}
}

// missing names a part of said that heard lacks, or "".
func missing(said, heard any, at string) string {
	switch said := said.(type) {
	case map[string]any:
		object, ok := heard.(map[string]any)
		if !ok {
			return at
		}
		for key, v := range said {
			if lost := missing(v, object[key], at+"."+key); lost != "" {
				return lost
			}
		}
		return ""
	case []any:
		list, ok := heard.([]any)
		if !ok || len(list) != len(said) {
			return at
		}
		for i, v := range said {
			if lost := missing(v, list[i], at+"[]"); lost != "" {
				return lost
			}
		}
		return ""
	default:
		if !reflect.DeepEqual(said, heard) {
			return at
		}
		return ""
	}
}

// TestPreviousVersionReadsOurs: what is said today is what the previous version
// understands, with members at most that it does not know.
func TestPreviousVersionReadsOurs(t *testing.T) {
	all, err := compile(os.DirFS(previous))
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range goldens {
		schema, ok := all[name]
		if !ok { // it is new
			continue
		}
		var doc any
		if err := json.Unmarshal(encode(t, message), &doc); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
