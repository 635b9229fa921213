package broker

import (
	"github.com/vramjet/vramjet/schemas"
)

// A Role says what a user of NATS does, and so what it may do.
type Role string

// The roles.
const (
	RoleDispatcher Role = "dispatcher" // places jobs, and keeps the streams
	RoleNode       Role = "node"       // a worker; its name is the node's
	RoleTenant     Role = "tenant"     // submits jobs and reads their answers; its name is the tenant
	RoleService    Role = "service"    // a backend of the kind rpc; its name is the backend's
	RoleOperator   Role = "operator"   // a person who looks after all of it
	RoleViewer     Role = "viewer"     // sees nodes and queues, and changes nothing
)

// Roles lists the roles.
var Roles = []Role{RoleDispatcher, RoleNode, RoleTenant, RoleService, RoleOperator, RoleViewer}

// A User is who may connect to NATS: one of a role, by its public nkey.
type User struct {
	Role Role   `json:"role"`
	Name string `json:"name"` // a token of schemas.ValidToken
	Key  string `json:"nkey"` // the public one: U…
}

// Account is the NATS account that the user is in: AccountMain, or one of its own. A
// user has one of its own who is not trusted with what a server does for its client:
// JetStream answers a request wherever that says, also on subjects that its sender may
// not publish on, and an answer on a subject of JetStream's is a request. Across
// accounts a server does not let a reply subject through.
func (u *User) Account() string {
	if u.Role == RoleTenant || u.Role == RoleViewer {
		return string(u.Role) + "-" + u.Name
	}
	return AccountMain
}

// AccountMain is the account that has the streams.
const AccountMain = "vramjet"

// InboxPrefix is what the user's reply subjects must begin with: nobody else may listen
// there. A tenant's is one that its jobs may name (see schemas.CheckReply), all others'
// are ones that no job may.
func (u *User) InboxPrefix() string {
	if u.Role == RoleTenant {
		return schemas.TenantInbox(u.Name)
	}
	return inboxOf(u.Role, u.Name)
}

func inboxOf(r Role, name string) string {
	return schemas.ReservedInboxes + string(r) + "." + name
}

// Permissions are the subjects that a user may publish on and subscribe to.
type Permissions struct {
	Publish   []string
	Subscribe []string

	// Local are subjects that a user with an account of its own may publish on and
	// subscribe to, and that stay in that account.
	Local []string

	// Respond allows the user to publish on the reply subjects of what it was asked.
	Respond bool
}

// PermissionsOf returns what the user may do, least privilege: what its processes and
// commands need, and nothing else. tenants are those whose inboxes may be answered to.
// It does not depend on the user's key.
//
// What NATS cannot narrow is told in docs/security.md.
func PermissionsOf(u *User, tenants []string) Permissions {
	p := Permissions{Subscribe: []string{u.InboxPrefix() + ".>"}}
	switch u.Role {
	case RoleDispatcher:
		p.dispatcher(tenants)
	case RoleNode:
		p.node(u.Name, tenants)
	case RoleTenant:
		p.submit(u.Name)
		p.history(u.Name)
		p.Local = []string{schemas.BatchEventSubject(u.Name, "*")}
	case RoleService:
		p = Permissions{Respond: true, Subscribe: []string{schemas.RPCSubject(u.Name, "*"), serviceDiscovery}}
	case RoleOperator:
		p.operator()
	case RoleViewer:
		p.view()
	default: // nothing but its inbox
	}
	return p
}

const serviceDiscovery = "$SRV.>"

func (p *Permissions) publish(subjects ...string)   { p.Publish = append(p.Publish, subjects...) }
func (p *Permissions) subscribe(subjects ...string) { p.Subscribe = append(p.Subscribe, subjects...) }

// ack allows to settle any delivery of the queue, by either form of its subject.
func (p *Permissions) ack() {
	p.publish("$JS.ACK."+StreamJobs+".>", "$JS.ACK.*.*."+StreamJobs+".>")
}

// answer allows to publish on the inboxes of roles and of tenants.
func (p *Permissions) answer(tenants []string, roles ...Role) {
	for _, r := range roles {
		p.publish(inboxOf(r, "*") + ".>")
	}
	for _, t := range tenants {
		p.publish(schemas.TenantInbox(t) + ".>")
	}
}

func (p *Permissions) dispatcher(tenants []string) {
	p.publish("$JS.API.INFO", "$JS.API.STREAM.NAMES")
	for _, s := range allStreams {
		p.publish(
			"$JS.API.*.*."+s, "$JS.API.*.*."+s+".>", // STREAM.CREATE, CONSUMER.CREATE, DIRECT.GET and their like
			"$JS.API.STREAM.MSG.*."+s, "$JS.API.CONSUMER.MSG.NEXT."+s+".*", "$JS.FC."+s+".>")
	}
	p.ack()
	p.publish("$KV."+BucketState+".>", schemas.NodeSubject("*", "run"), schemas.NodeSubject("*", "control"), schemas.NodesPing,
		schemas.CancelPrefix+">", schemas.JobsPrefix+">", schemas.LaterPrefix+">", schemas.EventsPrefix+">", schemas.ResultsPrefix+">", schemas.DeadPrefix+">")
	p.publish("_R_.>") // where a server has what is asked from another account answered
	p.answer(tenants, RoleNode, RoleOperator)
	p.subscribe(schemas.NodeSubject("*", "state"), schemas.NodeSubject("*", "done"), schemas.WaitingPrefix+">", schemas.APISubject("*", "*"), serviceDiscovery)
	p.look()
}

// look is what a dispatcher's dashboard needs beside: it asks whichever dispatcher leads,
// which may be in another process.
func (p *Permissions) look() {
	for _, verb := range []string{"list", "jobs", "pause", "resume"} {
		p.publish(schemas.APISubject("*", verb))
	}
	p.answer(nil, RoleDispatcher)
	p.subscribe(schemas.JobEventSubject("*", "*"))
}

func (p *Permissions) node(id string, tenants []string) {
	p.ack()
	p.publish(schemas.NodeSubject(id, "state"), schemas.NodeSubject(id, "done"),
		schemas.NodeSubject(id, "control"), // whether somebody else has its name
		schemas.RPCSubject("*", "*"), schemas.ResultsPrefix+">", schemas.DeadPrefix+">",
		"$KV."+BucketState+".need.*", "$KV."+BucketState+".pin."+id+".*",
		"$JS.API.STREAM.INFO."+streamState, "$JS.API.DIRECT.GET."+streamState,
		"$JS.API.STREAM.MSG.GET."+streamBodies, "$JS.API.DIRECT.GET."+streamBodies, "$JS.API.STREAM.PURGE."+streamBodies)
	p.answer(tenants, RoleDispatcher, RoleOperator)
	p.subscribe(schemas.NodeSubject(id, "run"), schemas.NodeSubject(id, "control"), schemas.NodesPing, schemas.CancelPrefix+">", serviceDiscovery,
		"$KV."+BucketState+".need.*", "$KV."+BucketState+".pin."+id+".*")
}

// submit is what it takes to submit jobs of a tenant, to ask about them, and to hear
// what becomes of them. "*" is any tenant.
func (p *Permissions) submit(tenant string) {
	p.publish(schemas.JobsPrefix+tenant+".>", schemas.LaterPrefix+tenant+".>", schemas.APISubject(tenant, "*"))
	p.subscribe(schemas.ResultsPrefix+tenant+".>", schemas.JobEventSubject(tenant, "*"))
}

// history is what it takes to read what is stored for a tenant, to run batches, and to
// submit large bodies. "*" is any tenant.
func (p *Permissions) history(tenant string) {
	batches := "$KV." + BucketBatches + "." + tenant + ".*"
	p.publish("$JS.API.DIRECT.GET."+StreamResults+"."+schemas.ResultsPrefix+tenant+".>", "$JS.API.DIRECT.GET."+streamBatches+"."+batches)
	p.consume(StreamResults, schemas.ResultsPrefix+tenant+".>")
	p.consume(StreamDead, schemas.DeadPrefix+tenant+".>")
	p.consume(streamBatches, batches)
	p.publish(batches, schemas.ObjectChunks("*"), "$O."+schemas.BucketBodies+".M.*")
}

// consume allows to read what a stream has on the subjects of a filter. That is a part
// of what the server is asked for: so it can be permitted. Of a consumer that is there,
// only the name is: whoever knows it may read from it.
func (p *Permissions) consume(stream, filter string) {
	p.publish("$JS.API.CONSUMER.CREATE."+stream+".*."+filter, "$JS.API.CONSUMER.MSG.NEXT."+stream+".*", "$JS.API.CONSUMER.DELETE."+stream+".*")
}

func (p *Permissions) operator() {
	p.submit("*")
	p.history("*")
	p.see()
	p.publish(schemas.NodeSubject("*", "control"), serviceDiscovery, "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.API.DIRECT.GET."+StreamDead, "$JS.API.STREAM.MSG.DELETE."+StreamDead, "$JS.API.CONSUMER.LIST."+StreamJobs,
		"$JS.API.DIRECT.GET."+streamState+".>")
}

// view is what shows no request and no answer, as far as NATS can tell: the verb show
// has the request where that is asked for.
func (p *Permissions) view() {
	p.see()
	for _, verb := range []string{"list", "jobs", "status", "why"} {
		p.publish(schemas.APISubject("*", verb))
	}
	p.subscribe(schemas.EventsPrefix + ">")
}

// see is what it takes to list nodes, and streams.
func (p *Permissions) see() {
	p.publish(schemas.NodesPing)
	for _, s := range allStreams {
		p.publish("$JS.API.STREAM.INFO." + s)
	}
	p.subscribe(schemas.NodeSubject("*", "state"))
}
