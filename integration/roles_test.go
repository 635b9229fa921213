package integration

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	gocmp "github.com/google/go-cmp/cmp"
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
	{Role: broker.RoleDispatcher, Name: "main"},
	{Role: broker.RoleNode, Name: "gpu-1"},
	{Role: broker.RoleNode, Name: "gpu-2"},
	{Role: broker.RoleTenant, Name: "acme"},
	{Role: broker.RoleTenant, Name: "beta"},
	{Role: broker.RoleService, Name: "upper"},
	{Role: broker.RoleOperator, Name: "ana"},
	{Role: broker.RoleViewer, Name: "wall"},
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

// mayPublish reports whether the server lets a connection publish on a subject. What is
// published there is nothing that JetStream does something for.
func (c *court) mayPublish(nc *nats.Conn, subject string) bool {
	c.Helper()
	if err := nc.Publish(subject, []byte("?")); err != nil {
		c.Fatal(err)
	}
	return c.permitted(nc, "Publish", subject)
}

func (c *court) maySubscribe(nc *nats.Conn, subject string) bool {
	c.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails where it was refused
	return c.permitted(nc, "Subscription", subject)
}

// permitted reports whether the server did not refuse what was just sent: a refusal comes
// before the answer to a ping.
func (c *court) permitted(nc *nats.Conn, what, subject string) bool {
	c.Helper()
	if err := nc.Flush(); err != nil {
		c.Fatal(err)
	}
	err := nc.LastError()
	return err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s to %q", what, subject))
}

// A subjectClass is a row of the matrix: what somebody may be allowed to do or not.
type subjectClass struct {
	what    string
	subject string
}

// matrix lists what is asked of each role, in groups. The tenant is acme, whose neighbour
// is beta, and the node is gpu-1, whose neighbour is gpu-2.
var matrix = []struct {
	group string
	rows  []subjectClass
}{
	{"jobs", []subjectClass{
		{"submit, own tenant", "vj.v1.jobs.acme.normal.m"},
		{"submit, other tenant", "vj.v1.jobs.beta.normal.m"},
		{"submit for later, own tenant", "vj.v1.later.acme.normal.m"},
		{"submit for later, other tenant", "vj.v1.later.beta.normal.m"},
		{"headers of jobs that wait", "vj.v1.waiting.beta.normal.m"},
		{"answers, own tenant", "vj.v1.results.acme.j.end"},
		{"answers, other tenant", "vj.v1.results.beta.j.end"},
		{"dead letters, own tenant", "vj.v1.dead.acme.normal.m"},
		{"dead letters, other tenant", "vj.v1.dead.beta.normal.m"},
		{"what becomes of jobs, own tenant", "vj.v1.events.acme.jobs.j"},
		{"what becomes of jobs, other tenant", "vj.v1.events.beta.jobs.j"},
		{"ask and pause, own tenant", "vj.v1.api.acme.pause"},
		{"ask and pause, other tenant", "vj.v1.api.beta.pause"},
		{"list, other tenant", "vj.v1.api.beta.list"},
		{"show a request, other tenant", "vj.v1.api.beta.show"},
	}},
	{"nodes and services", []subjectClass{
		{"ask all nodes for their state", "vj.v1.nodes.ping"},
		{"state, own node", "vj.v1.node.gpu-1.state"},
		{"state, other node", "vj.v1.node.gpu-2.state"},
		{"offer, own node", "vj.v1.node.gpu-1.run"},
		{"offer, other node", "vj.v1.node.gpu-2.run"},
		{"control, own node", "vj.v1.node.gpu-1.control"},
		{"control, other node", "vj.v1.node.gpu-2.control"},
		{"stop a job that runs", "vj.v1.cancel.beta.j"},
		{"requests to a service", "vj.v1.rpc.upper.generate"},
		{"requests to another service", "vj.v1.rpc.lower.generate"},
		{"discover services", "$SRV.PING"},
	}},
	{"inboxes", []subjectClass{
		{"a dispatcher's", "_INBOX.vj.dispatcher.main.x"},
		{"a node's, own", "_INBOX.vj.node.gpu-1.x"},
		{"a node's, other", "_INBOX.vj.node.gpu-2.x"},
		{"an operator's", "_INBOX.vj.operator.ana.x"},
		{"a tenant's, own", "_INBOX_acme.x"},
		{"a tenant's, other", "_INBOX_beta.x"},
		{"nobody's", "_INBOX.x"},
		{"all", "_INBOX.>"},
	}},
	{"JetStream", []subjectClass{
		{"settle a delivery", "$JS.ACK.VJ_JOBS.c.1.1.1.1.0"},
		{"settle a delivery, second form", "$JS.ACK._.h.VJ_JOBS.c.1.1.1.1.0"},
		{"settle a delivery of another stream", "$JS.ACK.VJ_DEAD.c.1.1.1.1.0"},
		{"account", "$JS.API.INFO"},
		{"list streams", "$JS.API.STREAM.LIST"},
		{"see VJ_JOBS", "$JS.API.STREAM.INFO.VJ_JOBS"},
		{"make VJ_JOBS", "$JS.API.STREAM.CREATE.VJ_JOBS"},
		{"make a stream of another name", "$JS.API.STREAM.CREATE.OTHER"},
		{"change VJ_JOBS", "$JS.API.STREAM.UPDATE.VJ_JOBS"},
		{"purge VJ_JOBS", "$JS.API.STREAM.PURGE.VJ_JOBS"},
		{"purge VJ_BODIES", "$JS.API.STREAM.PURGE.OBJ_VJ_BODIES"},
		{"delete VJ_JOBS", "$JS.API.STREAM.DELETE.VJ_JOBS"},
		{"save VJ_JOBS", "$JS.API.STREAM.SNAPSHOT.VJ_JOBS"},
		{"read a message of VJ_JOBS", "$JS.API.STREAM.MSG.GET.VJ_JOBS"},
		{"delete a message of VJ_JOBS", "$JS.API.STREAM.MSG.DELETE.VJ_JOBS"},
		{"delete a message of VJ_DEAD", "$JS.API.STREAM.MSG.DELETE.VJ_DEAD"},
		{"read VJ_JOBS by a consumer", "$JS.API.CONSUMER.CREATE.VJ_JOBS.c.vj.v1.jobs.acme.>"},
		{"list consumers of VJ_JOBS", "$JS.API.CONSUMER.LIST.VJ_JOBS"},
		{"read answers by a consumer, own tenant", "$JS.API.CONSUMER.CREATE.VJ_RESULTS.c.vj.v1.results.acme.>"},
		{"read answers by a consumer, other tenant", "$JS.API.CONSUMER.CREATE.VJ_RESULTS.c.vj.v1.results.beta.>"},
		{"read answers by a consumer, all tenants", "$JS.API.CONSUMER.CREATE.VJ_RESULTS.c.vj.v1.results.>"},
		{"read answers by a consumer, no filter", "$JS.API.CONSUMER.CREATE.VJ_RESULTS.c"},
		{"read answers by a durable consumer", "$JS.API.CONSUMER.DURABLE.CREATE.VJ_RESULTS.c"},
		{"read dead letters by a consumer, own tenant", "$JS.API.CONSUMER.CREATE.VJ_DEAD.c.vj.v1.dead.acme.>"},
		{"read dead letters by a consumer, other tenant", "$JS.API.CONSUMER.CREATE.VJ_DEAD.c.vj.v1.dead.beta.>"},
		{"read from a consumer of answers by its name", "$JS.API.CONSUMER.MSG.NEXT.VJ_RESULTS.c"},
		{"delete a consumer of answers by its name", "$JS.API.CONSUMER.DELETE.VJ_RESULTS.c"},
		{"names of consumers of answers", "$JS.API.CONSUMER.NAMES.VJ_RESULTS"},
		{"read from a consumer of VJ_JOBS by its name", "$JS.API.CONSUMER.MSG.NEXT.VJ_JOBS.c"},
		{"delete a consumer of VJ_JOBS by its name", "$JS.API.CONSUMER.DELETE.VJ_JOBS.c"},
		{"last answer of a subject, own tenant", "$JS.API.DIRECT.GET.VJ_RESULTS.vj.v1.results.acme.j.end"},
		{"last answer of a subject, other tenant", "$JS.API.DIRECT.GET.VJ_RESULTS.vj.v1.results.beta.j.end"},
		{"any answer", "$JS.API.DIRECT.GET.VJ_RESULTS"},
		{"any dead letter", "$JS.API.DIRECT.GET.VJ_DEAD"},
		{"any part of a large body", "$JS.API.DIRECT.GET.OBJ_VJ_BODIES"},
		{"advisories", "$JS.EVENT.ADVISORY.CONSUMER.CREATED.VJ_RESULTS.c"},
		{"other streams", "$JS.API.STREAM.DELETE.OTHER"},
	}},
	{"buckets", []subjectClass{
		{"the leader's lease", "$KV.VJ_STATE.leader"},
		{"what loads took", "$KV.VJ_STATE.need.x"},
		{"pins, own node", "$KV.VJ_STATE.pin.gpu-1.x"},
		{"pins, other node", "$KV.VJ_STATE.pin.gpu-2.x"},
		{"read the state", "$JS.API.DIRECT.GET.KV_VJ_STATE"},
		{"batches, own tenant", "$KV.VJ_BATCHES.acme.b"},
		{"batches, other tenant", "$KV.VJ_BATCHES.beta.b"},
		{"read a batch, own tenant", "$JS.API.DIRECT.GET.KV_VJ_BATCHES.$KV.VJ_BATCHES.acme.b"},
		{"read a batch, other tenant", "$JS.API.DIRECT.GET.KV_VJ_BATCHES.$KV.VJ_BATCHES.beta.b"},
		{"parts of large bodies", "$O.VJ_BODIES.C.x"},
		{"names of large bodies", "$O.VJ_BODIES.M.x"},
	}},
	{"the server", []subjectClass{
		{"who am I", "$SYS.REQ.USER.INFO"},
		{"servers", "$SYS.REQ.SERVER.PING"},
		{"connections", "$SYS.ACCOUNT.vramjet.CONNECT"},
		{"everything", ">"},
	}},
}

// columns are the users of the matrix.
var columns = []string{"dispatcher main", "node gpu-1", "tenant acme", "service upper", "operator ana", "viewer wall"}

// TestRoleMatrix: what each role may publish (p) and subscribe to (s), as a real server
// decides, is what testdata/roles.txt says, which docs/security.md shows.
func TestRoleMatrix(t *testing.T) {
	c := newCourt(t)
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	var users []*nats.Conn
	for _, who := range columns {
		users = append(users, c.as(who))
	}
	for _, g := range matrix {
		fmt.Fprint(w, g.group)
		for _, who := range columns {
			fmt.Fprint(w, "\t", strings.Fields(who)[0])
		}
		fmt.Fprintln(w)
		for _, row := range g.rows {
			fmt.Fprint(w, "  ", row.what)
			for _, nc := range users {
				cell := ""
				if !slices.Contains([]string{">", "_INBOX.>"}, row.subject) && c.mayPublish(nc, row.subject) {
					cell = "p"
				}
				if c.maySubscribe(nc, row.subject) {
					cell += "s"
				}
				fmt.Fprint(w, "\t", cmp.Or(cell, "-"))
			}
			fmt.Fprintln(w)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "roles.txt")
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("what roles may do is not what %s says (-want +got; -update writes it):\n%s", file, diff)
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+string(want)+"```\n") {
		t.Errorf("docs/security.md does not show %s", file)
	}
}
