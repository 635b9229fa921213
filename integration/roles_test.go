package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
)

// A court is a NATS server with users of all roles, the streams set up, and who they are.
type court struct {
	*testing.T
	url   string
	seeds map[string]string // files, by role and name
	users map[string]*broker.User
}

// everyone is a user of each role, and a second one where it makes a difference.
var everyone = []broker.User{
	{Role: broker.RoleDispatcher, Name: "main"}, {Role: broker.RoleNode, Name: "gpu-1"}, {Role: broker.RoleNode, Name: "gpu-2"},
	{Role: broker.RoleTenant, Name: "acme"}, {Role: broker.RoleTenant, Name: "beta"}, {Role: broker.RoleService, Name: "upper"}, {Role: broker.RoleOperator, Name: "ana"}, {Role: broker.RoleViewer, Name: "wall"},
}

func newCourt(t *testing.T) *court {
	t.Helper()
	c := &court{T: t, seeds: map[string]string{}, users: map[string]*broker.User{}}
	dir := t.TempDir()
	var users []broker.User
	for _, e := range everyone {
		u, seed, err := broker.NewUser(e.Role, e.Name)
		if err != nil {
			t.Fatal(err)
		}
		who := string(u.Role) + " " + u.Name
		c.seeds[who] = filepath.Join(dir, strings.ReplaceAll(who, " ", "-")+".nk")
		if err := os.WriteFile(c.seeds[who], seed, 0o600); err != nil {
			t.Fatal(err)
		}
		users, c.users[who] = append(users, u), &u
	}
	file := filepath.Join(dir, "auth.conf")
	if err := os.WriteFile(file, broker.WriteAuthorization(users), 0o600); err != nil {
		t.Fatal(err)
	}
	base, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c.url = brokertest.StartServer(t, embedded.Config{Base: &server.Options{Accounts: base.Accounts, Nkeys: base.Nkeys}}).ClientURL()
	brokertest.Setup(t, c.as("dispatcher main"))
	return c
}

// as connects as a user.
func (c *court) as(who string) *nats.Conn {
	c.Helper()
	nc, err := broker.Connect(c.Context(), broker.ConnectConfig{URL: c.url, NKey: c.seeds[who], InboxPrefix: c.users[who].InboxPrefix()}, brokertest.Log(c))
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(nc.Close)
	return nc
}

// A probe asks a server what a connection may do.
type probe struct {
	*testing.T
	nc      *nats.Conn
	refused atomic.Int64
}

func (c *court) probe(who string) *probe {
	c.Helper()
	p := &probe{T: c.T, nc: c.as(who)}
	p.nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			p.refused.Add(1)
		}
	})
	return p
}

// may reports whether the server refused nothing of what do has it do.
func (p *probe) may(do func() error) bool {
	p.Helper()
	before := p.refused.Load()
	if err := do(); err != nil {
		p.Fatal(err)
	}
	if err := p.nc.Flush(); err != nil { // the refusal comes before the answer to a ping
		p.Fatal(err)
	}
	// The error handler runs on a goroutine of its own, which a barrier waits for.
	done := make(chan struct{})
	if err := p.nc.Barrier(func() { close(done) }); err != nil {
		p.Fatal(err)
	}
	<-done
	return p.refused.Load() == before
}

func (p *probe) mayPublish(subject string) bool {
	p.Helper()
	return p.may(func() error { return p.nc.Publish(subject, []byte("?")) }) // nothing that JetStream does something for
}

func (p *probe) maySubscribe(subject string) bool {
	p.Helper()
	return p.may(func() error {
		sub, err := p.nc.SubscribeSync(subject)
		if err != nil {
			return err
		}
		p.Cleanup(func() { _ = sub.Unsubscribe() })
		return nil
	})
}

var _ = flag.Lookup
var _ = fmt.Sprint
var _ = tabwriter.NewWriter
var _ = cmp.Diff
var _ context.Context
var _ time.Time

func TestTry(t *testing.T) {
	c := newCourt(t)
	p := c.probe("tenant acme")
	fmt.Println(p.mayPublish("vj.v1.jobs.acme.x"), p.mayPublish("vj.v1.jobs.beta.x"), p.mayPublish("vj.v1.jobs.acme.y"), p.maySubscribe("_INBOX.>"), p.maySubscribe("_INBOX_acme.>"))
}
