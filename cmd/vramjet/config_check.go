package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vramjet/vramjet/schemas"
)

// A checker checks what was written against the types of Config, notes who set
// what, and collects what is wrong.
type checker struct {
	from     sources
	where    func(*yaml.Node) source
	problems []error
}

func (c *checker) fail(n *yaml.Node, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(c.where(n).name+": "+format, args...))
}

// check checks a node that stands for the key and has to be of type t. It marks
// text that looks like something else as text.
func (c *checker) check(n *yaml.Node, key string, t reflect.Type) {
	if n.Kind == yaml.AliasNode {
		c.fail(n, "%s is an alias: write it out", orFile(key))
		return
	}
	if n.Tag == "!!null" {
		return // as if it were not there
	}
	if read := scalarReader(t); read != nil {
		c.checkScalar(n, key, read)
		return
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		c.checkMembers(n, key, t)
	case reflect.Slice:
		c.checkList(n, key, t.Elem())
	default:
		panic("no rule for " + t.String() + " at " + key) // a new type in Config
	}
}

func (c *checker) checkScalar(n *yaml.Node, key string, read func(string) error) {
	if n.Kind != yaml.ScalarNode {
		c.fail(n, "%s is a %s, but takes a single value", orFile(key), kindName(n))
		return
	}
	if err := read(n.Value); err != nil {
		c.fail(n, "%s: %q is wrong: %w", key, n.Value, err)
		return
	}
	n.Tag = "!!str" // all values are read from text, one way
	c.from[key] = c.where(n)
}

func (c *checker) checkMembers(n *yaml.Node, key string, t reflect.Type) {
	if n.Kind != yaml.MappingNode {
		c.fail(n, "%s is a %s, but has members, written name: value", orFile(key), kindName(n))
		return
	}
	seen := map[string]int{}
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[name.Value]; twice {
			c.fail(name, "%s is set twice, the first time in line %d", keyPath(key, name.Value), line)
			continue
		}
		seen[name.Value] = name.Line
		name.Tag = "!!str" // a model named 7, say
		c.checkMember(name, value, key, t)
		if value.Tag != "!!null" || t.Kind() == reflect.Map { // a null is as if it were not there
			kept = append(kept, name, value)
		}
	}
	n.Content = kept
}

// checkMember checks one member of a node that has to be of type t.
func (c *checker) checkMember(name, value *yaml.Node, key string, t reflect.Type) {
	if t.Kind() == reflect.Map {
		member := keyPath(key, quoteName(name.Value))
		c.from[member] = c.where(name)
		c.check(value, member, t.Elem())
		return
	}
	member := keyPath(key, name.Value)
	f, ok := fieldOf(t, name.Value)
	if !ok {
		c.fail(name, "unknown key %q%s", member, suggestion(t, key, name.Value))
		return
	}
	c.check(value, member, f.Type)
}

func (c *checker) checkList(n *yaml.Node, key string, elem reflect.Type) {
	for k := range c.from { // a list replaces the one before
		if strings.HasPrefix(k, key+"[") {
			delete(c.from, k)
		}
	}
	if n.Kind == yaml.ScalarNode && scalarReader(elem) != nil { // one value is a list of one
		c.check(n, key, elem)
		return
	}
	if n.Kind != yaml.SequenceNode {
		c.fail(n, "%s is a %s, but takes a list, written [a, b]", orFile(key), kindName(n))
		return
	}
	c.from[key] = c.where(n)
	for i, value := range n.Content {
		c.check(value, key+"["+strconv.Itoa(i)+"]", elem)
	}
}

// scalarReader returns what checks a text that stands for a value of type t; nil
// where t is no single value.
func scalarReader(t reflect.Type) func(string) error {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return readDuration
	case reflect.TypeFor[Memory]():
		return readMemory
	}
	switch t.Kind() {
	case reflect.String:
		return func(string) error { return nil }
	case reflect.Bool:
		return readBool
	case reflect.Int:
		return func(s string) error { _, err := strconv.Atoi(s); return wanted(err, "a whole number") }
	case reflect.Float64:
		return func(s string) error {
			f, err := strconv.ParseFloat(s, 64)
			if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
				err = strconv.ErrRange
			}
			return wanted(err, "a number")
		}
	default:
		return nil
	}
}

func readDuration(s string) error {
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		return errors.New("want a duration that is not negative")
	}
	return wanted(err, "a duration such as 90s, 5m or 1h30m")
}

func readMemory(s string) error {
	b, err := schemas.ParseBytes(s)
	if err == nil && b == 0 {
		return errors.New("nothing needs no memory: leave it out where it is not known")
	}
	return wanted(err, "an amount of memory such as 44GiB, 512MiB or a number of bytes")
}

func readBool(s string) error {
	if s != "true" && s != "false" {
		return errors.New("want true or false")
	}
	return nil
}

func wanted(err error, what string) error {
	if err != nil {
		return errors.New("want " + what)
	}
	return nil
}

// fieldOf returns the field of a struct that a key's last name means.
func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("koanf") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// suggestion says what may have been meant by a member that t does not have.
func suggestion(t reflect.Type, key, name string) string {
	var names []string
	for f := range t.Fields() {
		names = append(names, f.Tag.Get("koanf"))
	}
	if best, ok := nearest(name, names); ok {
		return fmt.Sprintf(": did you mean %q?", keyPath(key, best))
	}
	return ": there are " + strings.Join(names, ", ")
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	default:
		return "single value"
	}
}

func orFile(key string) string {
	if key == "" {
		return "the configuration"
	}
	return key
}

// keyPath joins the names of a key: nats.url, models["llama3.3:70b"].need.
func keyPath(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		if b.Len() > 0 && name[:min(1, len(name))] != "[" {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// quoteName returns a name that the user chose as it stands in a key.
func quoteName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return "[" + strconv.Quote(name) + "]"
}
