package broker_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
)

// TestDifferences: a stream that Setup made differs in nothing; what somebody changed is
// named, and so is what nobody can change.
func TestDifferences(t *testing.T) {
	js := brokertest.Setup(t, brokertest.Connect(t, brokertest.Start(t)))
	for _, name := range broker.StreamNames() {
		if way, differs := broker.Differences(streamInfo(t, js, name).Config, broker.StreamsConfig{}); way != "" || len(differs) > 0 {
			t.Errorf("%s: %q, %q", name, way, differs)
		}
	}
	cfg := streamInfo(t, js, broker.StreamJobs).Config
	for _, c := range []struct {
		what   string
		change func(*jetstream.StreamConfig)
		want   string
	}{
		{"replicas", func(c *jetstream.StreamConfig) { c.Replicas = 3 }, ""},
		{"what is ours to leave alone", func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression }, ""},
		{"a limit", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 }, "max_msgs_per_subject is 10, not 100000"},
		{"discard", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, "discard is DiscardOld, not DiscardNew"},
		{"no copies", func(c *jetstream.StreamConfig) { c.RePublish = nil }, "republish is not as wanted"},
		{"retention", func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }, "in the way: its retention is Limits, but WorkQueue is wanted"},
		{"another stream", func(c *jetstream.StreamConfig) { c.Name = "OTHER" }, "in the way: it is none of ours"},
	} {
		have := cfg
		c.change(&have)
		way, differs := broker.Differences(have, broker.StreamsConfig{})
		got := strings.Join(differs, "; ")
		if way != "" {
			got = "in the way: " + way
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// TestWhoMay: who may do what is what their permissions say.
func TestWhoMay(t *testing.T) {
	for _, c := range []struct {
		subject string
		want    []broker.Role
	}{
		{"$JS.API.STREAM.INFO.VJ_JOBS", []broker.Role{broker.RoleDispatcher, broker.RoleOperator, broker.RoleViewer}},
		{"$JS.API.CONSUMER.LIST.VJ_JOBS", []broker.Role{broker.RoleDispatcher, broker.RoleOperator}},
		{"$JS.API.CONSUMER.LIST.VJ_RESULTS", []broker.Role{broker.RoleDispatcher}},
		{"vj.v1.api.acme.list", []broker.Role{broker.RoleDispatcher, broker.RoleTenant, broker.RoleOperator, broker.RoleViewer}},
		{"vj.v1.api.acme.purge", []broker.Role{broker.RoleTenant, broker.RoleOperator}},
		{"vj.v1.api.acme", nil},
		{"vj.v1.jobs.acme.normal.a.b", []broker.Role{broker.RoleDispatcher, broker.RoleTenant, broker.RoleOperator}},
	} {
		if got := broker.WhoMayPublish(c.subject, "acme"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.subject, got, c.want)
		}
	}
	if got := broker.WhoMaySubscribe("vj.v1.node.*.state", "acme"); !slices.Equal(got, []broker.Role{broker.RoleDispatcher, broker.RoleOperator, broker.RoleViewer}) {
		t.Errorf("%v may listen to nodes", got)
	}
}
