package schemas

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	mistake "github.com/santhosh-tekuri/jsonschema/v6/kind"
)

//go:embed jsonschema/*.json
var schemaFiles embed.FS

// compiled returns all JSON Schemas by their names: "chat" for jsonschema/chat.json.
var compiled = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) { return compile(schemaFiles) })

// compile compiles all that is in the folder jsonschema.
func compile(in fs.FS) (map[string]*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	files, err := fs.Glob(in, "jsonschema/*.json")
	if err != nil {
		return nil, fmt.Errorf("list the schemas: %w", err)
	}
	const base = "https://vramjet.dev/schemas/v1/"
	for _, file := range files {
		text, err := fs.ReadFile(in, file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		if err := compiler.AddResource(base+path.Base(file), doc); err != nil {
			return nil, fmt.Errorf("add %s: %w", file, err)
		}
	}
	all := make(map[string]*jsonschema.Schema, len(files))
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".json")
		if all[name], err = compiler.Compile(base + path.Base(file)); err != nil {
			return nil, fmt.Errorf("compile %s: %w", file, err)
		}
	}
	return all, nil
}

// ValidateBody checks an OpenAI request, a JSON object, against the JSON Schema
// of its kind. The error is an *Error with the code InvalidRequest, whose
// Message begins with the member that is wrong and whose Param names it.
//
// It's cheap for a body of the usual form, about a microsecond for a short chat.
func ValidateBody(kind Kind, body []byte) error {
	if err := checkSyntax(body); err != nil {
		return err
	}
	s := readShape(body)
	return s.validate(kind, body)
}

// checkSyntax checks that body is one JSON object.
func checkSyntax(body []byte) error {
	if !json.Valid(body) {
		var v json.RawMessage
		err := json.Unmarshal(body, &v)
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			return Errorf(InvalidRequest, "the body is not JSON: %s, at byte %d", e, e.Offset)
		}
		return Errorf(InvalidRequest, "the body is not JSON: %v", err)
	}
	if bytes.TrimLeft(body, space)[0] != '{' {
		return Errorf(InvalidRequest, "the body is not a JSON object")
	}
	return nil
}

// validate checks body, whose shape s is, as one of kind.
func (s *shape) validate(kind Kind, body []byte) error {
	if err := kind.check(); err != nil {
		return err
	}
	switch {
	case s.twice != "":
		err := Errorf(InvalidRequest, "%s: stands twice in the body", s.twice)
		err.Param = s.twice
		return err
	case s.plain && s.has(kind):
		return nil
	}
	return validate(string(kind), body)
}

// validate checks a message, which is JSON, against the JSON Schema with this
// name. Its error is an *Error with the code InvalidRequest.
func validate(name string, message []byte) error {
	all, err := compiled()
	if err != nil {
		return Errorf(Internal, "the JSON Schemas of the protocol: %s", err)
	}
	schema, ok := all[name]
	if !ok {
		return Errorf(Internal, "there is no JSON Schema with the name %q", name)
	}
	decoder := json.NewDecoder(bytes.NewReader(message))
	decoder.UseNumber()
	var doc any
	if err := decoder.Decode(&doc); err != nil {
		return Errorf(InvalidRequest, "not JSON: %s", err)
	}
	err = schema.Validate(bounded(doc))
	if invalid, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return explain(invalid)
	}
	if err != nil {
		return Errorf(InvalidRequest, "%s", err)
	}
	return nil
}

// bounded returns doc with each number as a float64, the largest one where it is
// too large: the validator computes numbers exactly, and an exponent of millions
// would keep it busy, or crash it.
func bounded(doc any) any {
	switch v := doc.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return math.Copysign(math.MaxFloat64, f)
		}
		return f
	case []any:
		for i := range v {
			v[i] = bounded(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = bounded(v[k])
		}
	}
	return doc
}

// explain makes an Error of the deepest cause, as it says most.
func explain(invalid *jsonschema.ValidationError) *Error {
	leaf := slices.MinFunc(leaves(invalid), func(a, b *jsonschema.ValidationError) int {
		if d := len(b.InstanceLocation) - len(a.InstanceLocation); d != 0 {
			return d
		}
		return strings.Compare(strings.Join(a.InstanceLocation, "."), strings.Join(b.InstanceLocation, "."))
	})
	where, what := leaf.InstanceLocation, "is not as its JSON Schema says"
	switch k := leaf.ErrorKind.(type) {
	case *mistake.Required:
		where, what = append(slices.Clone(where), k.Missing[0]), "is missing"
	case *mistake.Type:
		what = fmt.Sprintf("is of the type %s, want %s", k.Got, strings.Join(k.Want, " or "))
	case *mistake.Enum:
		what = "is " + truncate(fmt.Sprintf("%#v", k.Got)) + ", want " + strings.Trim(fmt.Sprint(k.Want), "[]")
	case *mistake.MinItems:
		what = "is empty"
	case *mistake.Minimum:
		want, _ := k.Want.Float64()
		what = fmt.Sprintf("is too small, want %g or more", want)
	}
	param := strings.Join(where, ".")
	if param == "" {
		return Errorf(InvalidRequest, "the body %s", what)
	}
	err := Errorf(InvalidRequest, "%s: %s", param, what)
	err.Param = param
	return err
}

// leaves returns the causes of an error that have no cause themselves.
func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var all []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		all = append(all, leaves(cause)...)
	}
	return all
}
