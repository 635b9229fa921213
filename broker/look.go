package broker

import (
	"context"
	"fmt"
	"log/slog"
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

// LeaderKey is the key of BucketState that is the dispatchers' lease.
const LeaderKey = "leader"

// Leader returns the ID of the dispatcher that holds the lease, "" for none. One that
// crashed is returned until another takes over.
func Leader(ctx context.Context, js jetstream.JetStream) (string, error) {
	kv, err := js.KeyValue(ctx, BucketState)
	if err != nil {
		return "", fmt.Errorf("open the bucket %s: %w", BucketState, err)
	}
	return NewLease(kv, LeaderKey, "", 0, slog.New(slog.DiscardHandler)).Holder(ctx)
}

// WhoMayPublish lists the roles whose users may publish on a subject. tenant is whose
// the subject is, where it is a tenant's.
func WhoMayPublish(subject, tenant string) []Role {
	return rolesWith(tenant, subject, func(p *Permissions) []string { return p.Publish })
}

// WhoMaySubscribe lists the roles whose users may subscribe to a subject, likewise.
func WhoMaySubscribe(subject, tenant string) []Role {
	return rolesWith(tenant, subject, func(p *Permissions) []string { return p.Subscribe })
}

func rolesWith(tenant, subject string, allowed func(*Permissions) []string) (roles []Role) {
	for _, r := range Roles {
		u := User{Role: r, Name: "*"}
		if r == RoleTenant {
			u.Name = tenant
		}
		p := PermissionsOf(&u, nil)
		if slices.ContainsFunc(allowed(&p), func(pattern string) bool { return covers(pattern, subject) }) {
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
