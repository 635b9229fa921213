package main

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/broker"
)

// show returns every value of a configuration, in the order of its keys, and who
// set it. Of what stands in lists and maps it leaves out what was not set.
func show(cfg *Config, from sources) []shownValue {
	s := shower{from: from}
	s.walk(reflect.ValueOf(*cfg), "", false)
	return s.values
}

type shower struct {
	from   sources
	values []shownValue
}

// walk adds the values under key. listed says that it stands in a list or a map.
func (s *shower) walk(v reflect.Value, key string, listed bool) { //nolint:revive // flag-parameter: where the value stands, not what to do
	if text, ok := valueText(v); ok {
		s.add(key, text, listed && v.IsZero())
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for f, member := range v.Fields() {
			s.walk(member, keyPath(key, f.Tag.Get("koanf")), listed)
		}
	case reflect.Map:
		names := map[string]reflect.Value{}
		for name, member := range v.Seq2() {
			names[name.String()] = member
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			s.walk(names[name], keyPath(key, quoteName(name)), true)
		}
		if v.Len() == 0 && !listed {
			s.add(key, "", false)
		}
	default:
		for i := range v.Len() {
			s.walk(v.Index(i), key+"["+strconv.Itoa(i)+"]", true)
		}
		if v.Len() == 0 && !listed {
			s.add(key, "", false)
		}
	}
}

func (s *shower) add(key, text string, zero bool) {
	by, set := s.from[key]
	switch {
	case set:
	case zero:
		return
	default:
		by.name = "default"
	}
	switch {
	case key == "nats.url":
		text = broker.Redact(text)
	case strings.HasSuffix(key, ".url"):
		text = redact(text)
	}
	s.values = append(s.values, shownValue{Key: key, Value: text, Source: by.name})
}

// redact returns a URL without whoever stands before an '@', and without what may
// be a key behind a '?'.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "***"
	}
	if u.User != nil {
		u.User = url.User("redacted")
	}
	if u.RawQuery != "" {
		u.RawQuery = "redacted"
	}
	return u.String()
}

// valueText returns a value as it would be written; false where it has members
// that are shown each by itself.
func valueText(v reflect.Value) (string, bool) {
	if list, ok := reflect.TypeAssert[[]string](v); ok {
		return strings.Join(list, ", "), true
	}
	if scalarReader(v.Type()) != nil {
		return fmt.Sprint(v.Interface()), true
	}
	return "", false
}
