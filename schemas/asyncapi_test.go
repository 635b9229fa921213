package schemas

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func readAsyncAPI(t *testing.T) (text string, doc map[string]any) {
	t.Helper()
	b, err := os.ReadFile("asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["asyncapi"] != "3.0.0" {
		t.Errorf("the version is %v", doc["asyncapi"])
	}
	return string(b), doc
}

// Each $ref of the document leads somewhere, and each part of it is led to.
func TestAsyncAPIRefs(t *testing.T) {
	_, doc := readAsyncAPI(t)
	used := map[string]bool{}
	walkRefs(doc, func(ref string) {
		used[ref] = true
		file, pointer, _ := strings.Cut(ref, "#")
		target := doc
		if file != "" {
			target = nil
			text, err := os.ReadFile(filepath.FromSlash(file))
			if err == nil {
				err = json.Unmarshal(text, &target)
			}
			if err != nil {
				t.Errorf("%s: %v", ref, err)
				return
			}
			used[strings.TrimPrefix(file, "./")] = true
		}
		if !resolves(target, pointer) {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	for _, part := range []string{"channels", "components/messages", "components/schemas", "components/parameters"} {
		at := any(doc)
		for name := range strings.SplitSeq(part, "/") {
			at = at.(map[string]any)[name]
		}
		for name := range at.(map[string]any) {
			if !used["#/"+part+"/"+name] {
				t.Errorf("nothing leads to %s/%s", part, name)
			}
		}
	}
	indirect := []string{
		"jsonschema/request.json", "jsonschema/run.json",
		"jsonschema/learned-need.json", "jsonschema/victim.json", "jsonschema/batch-record.json", // values in KV buckets
	}
	files, _ := filepath.Glob("jsonschema/*.json")
	for _, f := range files {
		if !used[filepath.ToSlash(f)] && !slices.Contains(indirect, filepath.ToSlash(f)) {
			t.Errorf("no message has the schema %s", f)
		}
	}
}

func walkRefs(v any, visit func(string)) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			visit(ref)
		}
		for _, member := range v {
			walkRefs(member, visit)
		}
	case []any:
		for _, item := range v {
			walkRefs(item, visit)
		}
	}
}

func resolves(at any, pointer string) bool {
	for name := range strings.SplitSeq(strings.Trim(pointer, "/"), "/") {
		if name == "" {
			continue
		}
		object, ok := at.(map[string]any)
		if !ok {
			return false
		}
		if at, ok = object[name]; !ok {
			return false
		}
	}
	return true
}

// The document and the code have the same subjects.
func TestAsyncAPISubjects(t *testing.T) {
	_, doc := readAsyncAPI(t)
	var prefixes []string
	for name, value := range stringConsts(t, "subject.go") {
		if strings.HasSuffix(name, "Prefix") || name == "NodesPing" {
			prefixes = append(prefixes, value)
		}
	}
	seen := map[string]bool{}
	for name, channel := range doc["channels"].(map[string]any) {
		channel := channel.(map[string]any)
		address, ok := channel["address"].(string)
		if !ok {
			continue // an inbox
		}
		i := slices.IndexFunc(prefixes, func(p string) bool { return strings.HasPrefix(address, p) })
		if i < 0 {
			t.Errorf("the channel %s has the address %s, which no constant begins", name, address)
			continue
		}
		seen[prefixes[i]] = true
		parameters, _ := channel["parameters"].(map[string]any)
		var inAddress []string
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(address, -1) {
			inAddress = append(inAddress, m[1])
		}
		wantSame(t, inAddress, slices.Collect(maps.Keys(parameters)))
	}
	wantSame(t, prefixes, slices.Collect(maps.Keys(seen)))
}

// The document and the code have the same headers.
func TestAsyncAPIHeaders(t *testing.T) {
	text, _ := readAsyncAPI(t)
	var inCode []string
	for name, value := range stringConsts(t, "header.go") {
		if strings.HasPrefix(name, "Header") {
			inCode = append(inCode, value)
		}
	}
	inText := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ +(Vj-[A-Za-z-]+|Nats-Msg-Id|Nats-TTL|traceparent):`).FindAllStringSubmatch(text, -1) {
		inText[m[1]] = true
	}
	wantSame(t, inCode, slices.Collect(maps.Keys(inText)))
}

// stringConsts returns the string constants of a file of this package.
func stringConsts(t *testing.T, file string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[spec.Names[0].Name] = value
		}
		return true
	})
	if len(found) == 0 {
		t.Fatalf("%s has no string constants", file)
	}
	return found
}
