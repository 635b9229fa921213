package broker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/schemas"
)

// userOf makes a user.
func userOf(t *testing.T, role broker.Role, name string) broker.User {
	t.Helper()
	u, seed, err := broker.NewUser(role, name)
	if err != nil || !strings.HasPrefix(string(seed), "SU") {
		t.Fatal(err)
	}
	return u
}

// TestTenantsOwn: each subject of a tenant names it, but for those that NATS cannot narrow,
// which are these.
func TestTenantsOwn(t *testing.T) {
	wide := []string{
		"$JS.API.CONSUMER.MSG.NEXT.VJ_RESULTS.*", "$JS.API.CONSUMER.DELETE.VJ_RESULTS.*", "$JS.API.CONSUMER.MSG.NEXT.VJ_DEAD.*", "$JS.API.CONSUMER.DELETE.VJ_DEAD.*",
		"$JS.API.CONSUMER.MSG.NEXT.KV_VJ_BATCHES.*", "$JS.API.CONSUMER.DELETE.KV_VJ_BATCHES.*", "$O.VJ_BODIES.C.*", "$O.VJ_BODIES.M.*",
	}
	p := broker.PermissionsOf(&broker.User{Role: broker.RoleTenant, Name: "acme"}, []string{"acme", "beta"})
	for _, s := range slices.Concat(p.Publish, p.Subscribe, p.Local) {
		own := slices.Contains(strings.Split(s, "."), "acme") || strings.HasPrefix(s, "_INBOX_acme.")
		if own == slices.Contains(wide, s) {
			t.Errorf("a tenant may use %s", s)
		}
	}
}

// TestInboxes: nobody may listen to what another may, and only a tenant's inbox is one that
// a job may name.
func TestInboxes(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range broker.Roles {
		u := userOf(t, r, "acme")
		prefix := u.InboxPrefix()
		if seen[prefix] {
			t.Errorf("%s has another's inboxes, %s", r, prefix)
		}
		seen[prefix] = true
		p := broker.PermissionsOf(&u, nil)
		if len(p.Publish) == 0 && !p.Respond || len(p.Subscribe) == 0 {
			t.Errorf("%s has no list of subjects, which allows all", r)
		}
		for _, s := range p.Subscribe {
			if strings.HasPrefix(s, "_INBOX") && s != prefix+".>" {
				t.Errorf("%s may listen on %s", r, s)
			}
		}
		if named := schemas.CheckReply("acme", prefix+".x", nil) == nil; named != (r == broker.RoleTenant) {
			t.Errorf("a job may be answered on %s: %t", prefix, named)
		}
	}
}

// TestAuthorization: what is written is a NATS server's configuration, and says who is in
// it, whatever the roles may do by then.
func TestAuthorization(t *testing.T) {
	var users []broker.User
	for _, r := range broker.Roles {
		users = append(users, userOf(t, r, "a-b_1"), userOf(t, r, "x"))
	}
	text := broker.WriteAuthorization(users)
	got, err := broker.ReadAuthorization(text)
	if err != nil {
		t.Fatal(err)
	}
	if again := broker.WriteAuthorization(got); string(again) != string(text) {
		t.Error(cmp.Diff(string(text), string(again)))
	}
	file := filepath.Join(t.TempDir(), "auth.conf")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(opts.Nkeys) != len(users) || len(opts.Accounts) != 1+4 {
		t.Errorf("the server has %d users in %d accounts", len(opts.Nkeys), len(opts.Accounts))
	}
	for _, n := range opts.Nkeys {
		i := slices.IndexFunc(users, func(u broker.User) bool { return u.Key == n.Nkey })
		if i < 0 || n.Account.Name != users[i].Account() || n.Permissions == nil {
			t.Errorf("%s is not the user that was written", n.Nkey)
		}
	}
}

func TestReadAuthorizationRefuses(t *testing.T) {
	text := string(broker.WriteAuthorization([]broker.User{userOf(t, broker.RoleTenant, "acme")}))
	for name, broken := range map[string]string{
		"nothing": "", "somebody else's": "authorization {}\n" + text,
		"no role": strings.Replace(text, "# tenant acme", "# king acme", 1), "no name": strings.Replace(text, "# tenant acme", "# tenant a.b", 1),
		"no key": strings.Replace(text, "nkey: U", "nkey: X", 1),
	} {
		if users, err := broker.ReadAuthorization([]byte(broken)); err == nil {
			t.Errorf("%s is read as %+v", name, users)
		}
	}
}

// TestSetupEndsRollups: a bucket of batches of an older version is changed, so that no
// tenant can remove the others' any more.
func TestSetupEndsRollups(t *testing.T) {
	js := brokertest.Setup(t, brokertest.Connect(t, brokertest.Start(t)))
	info := streamInfo(t, js, "KV_"+broker.BucketState)
	old := streamInfo(t, js, "KV_"+broker.BucketBatches).Config
	old.AllowRollup, old.SubjectDeleteMarkerTTL = true, info.Config.SubjectDeleteMarkerTTL
	ctx := within(t, patience)
	if _, err := js.UpdateStream(ctx, old); err != nil {
		t.Fatal(err)
	}
	if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err != nil {
		t.Fatal(err)
	}
	if now := streamInfo(t, js, "KV_"+broker.BucketBatches).Config; now.AllowRollup {
		t.Errorf("it is %+v", now)
	}
	if _, err := js.KeyValue(ctx, broker.BucketBatches); err != nil { // of the nats command
		t.Error(err)
	}
}
