package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"
)

// A rank says how explicitly a value was chosen. The higher one wins.
type rank int

const (
	byDefault rank = iota
	byFile
	byEnv
	byFlag
)

// A source says who set a value.
type source struct {
	rank rank
	name string // for people: vramjet.yaml:12, $VRAMJET_NODE, --node
}

// sources are the sources of what was set, by key: nats.url, backends[0].name.
type sources map[string]source

// keySeparator cannot stand in a key, while the '.' stands in every other
// model's name.
const keySeparator = "\x1f"

// loadConfig reads the configuration: defaults, over them the file, over it the
// environment, over it the flags, which are values by key. path is the file that
// a flag names; "" means $VRAMJET_CONFIG, or the first that is there of those
// that are looked for.
func loadConfig(path string, getenv func(string) string, flags map[string]string) (*Config, sources, error) {
	l := loader{config: koanf.New(keySeparator), from: sources{}}
	l.add([]byte(defaults), func(*yaml.Node) source { return source{byDefault, "default"} })
	l.from = sources{}
	if err := l.addFile(path, getenv); err != nil {
		return nil, nil, err
	}
	l.addEnv(getenv)
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		l.set(key, flags[key], source{byFlag, flagName(key)})
	}
	if len(l.problems) > 0 {
		return nil, nil, errors.Join(l.problems...)
	}
	var cfg Config
	if err := l.config.Unmarshal("", &cfg); err != nil {
		return nil, nil, fmt.Errorf("configuration: %w", err)
	}
	if cfg.Node == "" {
		cfg.Node = hostName()
		l.from["node"] = source{byDefault, "host name"}
	}
	if err := validate(&cfg, l.from); err != nil {
		return nil, nil, err
	}
	return &cfg, l.from, nil
}

// A loader lays one layer of the configuration over the other.
type loader struct {
	config   *koanf.Koanf
	from     sources
	problems []error
}

// layer is a layer of the configuration, for koanf.
type layer map[string]any

// Read returns the layer.
func (l layer) Read() (map[string]any, error) { return l, nil }

// ReadBytes is never called, as no layer is parsed by koanf.
func (layer) ReadBytes() ([]byte, error) { return nil, errors.ErrUnsupported }

// addFile adds the file, if there is one.
func (l *loader) addFile(path string, getenv func(string) string) error {
	named := path
	if named == "" {
		named = getenv("VRAMJET_CONFIG")
	}
	candidates := []string{named}
	if named == "" {
		candidates = []string{"vramjet.yaml"}
		if dir := configDir(getenv); dir != "" {
			candidates = append(candidates, filepath.Join(dir, "vramjet", "config.yaml"))
		}
		candidates = append(candidates, "/etc/vramjet/config.yaml")
	}
	for _, file := range candidates {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && named == "" {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		l.add(text, func(n *yaml.Node) source { return source{byFile, fmt.Sprintf("%s:%d", file, n.Line)} })
		return nil
	}
	return nil
}

// add lays a YAML text over what is there.
func (l *loader) add(text []byte, where func(*yaml.Node) source) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		l.problems = append(l.problems, noYAML(strings.TrimSuffix(where(&yaml.Node{Line: 1}).name, ":1"), err))
		return
	}
	if len(doc.Content) == 0 {
		return // empty
	}
	l.lay(doc.Content[0], nil, reflect.TypeFor[Config](), where)
}

// noYAML says what is wrong with a file that is no YAML. The line that the library tells
// is often that before the mistake, or the one that what is wrong began in.
func noYAML(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if line, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok && line != text {
		return fmt.Errorf("%s:%s: it is no YAML, there or in the next lines: %s", file, line, rest)
	}
	return fmt.Errorf("%s: it is no YAML: %s", file, text)
}

// lay checks a node of type t that stands under path, and lays it over what is
// there.
func (l *loader) lay(n *yaml.Node, path []string, t reflect.Type, where func(*yaml.Node) source) {
	c := checker{from: l.from, where: where}
	c.check(n, keyPath(path...), t)
	if len(c.problems) > 0 {
		l.problems = append(l.problems, c.problems...)
		return
	}
	var value any
	if err := n.Decode(&value); err != nil {
		l.problems = append(l.problems, fmt.Errorf("%s: %w", where(n).name, err))
		return
	}
	for _, key := range slices.Backward(path) {
		value = map[string]any{key: value}
	}
	members, ok := value.(map[string]any)
	if !ok {
		return // a file that says null
	}
	if err := l.config.Load(layer(members), nil); err != nil {
		l.problems = append(l.problems, fmt.Errorf("%s: %w", where(n).name, err))
	}
}

// addEnv adds what the environment sets: each key as VRAMJET_…, lists and maps as
// YAML.
func (l *loader) addEnv(getenv func(string) string) {
	l.setEnv("nats.url", "NATS_URL", getenv)
	for _, key := range envKeys(reflect.TypeFor[Config](), "") {
		l.setEnv(key, envName(key), getenv)
	}
	l.setEnv("nats.url", "VRAMJET_SERVER", getenv)
}

func (l *loader) setEnv(key, name string, getenv func(string) string) {
	l.set(key, getenv(name), source{byEnv, "$" + name})
}

// set sets a key to a value as it stands in the environment or behind a flag.
// The empty value sets nothing.
func (l *loader) set(key, value string, from source) {
	if value == "" {
		return
	}
	path := strings.Split(key, ".")
	t := typeAt(reflect.TypeFor[Config](), path)
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if k := t.Kind(); k == reflect.Slice || k == reflect.Map {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(value), &doc); err != nil || len(doc.Content) == 0 {
			l.problems = append(l.problems, fmt.Errorf("%s: want %s as YAML, such as %s", from.name, key, example(t)))
			return
		}
		n = doc.Content[0]
	}
	l.lay(n, path, t, func(*yaml.Node) source { return from })
}

func example(t reflect.Type) string {
	if t.Kind() == reflect.Map {
		return "{name: {…}}"
	}
	return "[{name: …}]"
}

// envName is the environment variable of a key.
func envName(key string) string {
	return "VRAMJET_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// flagName is the flag that sets a key.
func flagName(key string) string {
	if key == "nats.url" {
		return "--server"
	}
	last := key[strings.LastIndexByte(key, '.')+1:]
	return "--" + strings.ReplaceAll(last, "_", "-")
}

// envKeys lists the keys that the environment can set: those of single values,
// and lists and maps as a whole.
func envKeys(t reflect.Type, prefix string) []string {
	var keys []string
	for f := range t.Fields() {
		key := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, envKeys(f.Type, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// typeAt returns the type of the key with that path, which exists.
func typeAt(t reflect.Type, path []string) reflect.Type {
	for _, name := range path {
		f, ok := fieldOf(t, name)
		if !ok {
			panic("there is no key " + strings.Join(path, ".")) // the names are those of this program
		}
		t = f.Type
	}
	return t
}
