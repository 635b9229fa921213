package broker

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamNames returns the names of all streams, those behind buckets too.
func StreamNames() []string { return slices.Clone(allStreams) }

// Differences says how a stream differs from what Setup makes of it, in words. What
// stands in the way cannot be changed by anybody, and is "" where nothing does; what
// differs, the next Setup changes. How many replicas there are is not looked at: that
// is for each installation to say.
func Differences(have jetstream.StreamConfig, cfg StreamsConfig) (inTheWay string, differs []string) {
	cfg.Replicas = have.Replicas
	for _, want := range cfg.streams() {
		if want.Name == have.Name {
			return unchangeable(have, want), differences(have, merge(have, want))
		}
	}
	return "it is none of ours", nil
}

// differences lists the settings in which two configurations differ.
func differences(have, want jetstream.StreamConfig) (differs []string) {
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for field, was := range h.Fields() {
		is := w.FieldByIndex(field.Index)
		if reflect.DeepEqual(was.Interface(), is.Interface()) {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if k := was.Kind(); k == reflect.Pointer || k == reflect.Struct {
			differs = append(differs, name+" is not as wanted")
			continue
		}
		differs = append(differs, fmt.Sprintf("%s is %v, not %v", name, was.Interface(), is.Interface()))
	}
	return differs
}

// WhoMay lists the roles whose users may publish on a subject. tenant is whose that
// subject is, where it is a tenant's.
func WhoMay(publish, tenant string) (roles []Role) {
	for _, r := range Roles {
		u := User{Role: r, Name: "*"}
		if r == RoleTenant {
			u.Name = tenant
		}
		p := PermissionsOf(&u, nil)
		if slices.ContainsFunc(p.Publish, func(pattern string) bool { return covers(pattern, publish) }) {
			roles = append(roles, r)
		}
	}
	return roles
}

// covers reports whether a pattern allows a subject.
func covers(pattern, subject string) bool {
	for {
		p, restOfPattern, moreOfPattern := strings.Cut(pattern, ".")
		s, rest, more := strings.Cut(subject, ".")
		switch {
		case p == ">":
			return true
		case p != "*" && p != s:
			return false
		case !moreOfPattern || !more:
			return moreOfPattern == more
		}
		pattern, subject = restOfPattern, rest
	}
}
