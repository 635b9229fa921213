package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/broker"
)

// TestAuth: users are made, listed and revoked, seeds are their owner's alone, and
// auth.conf holds none.
func TestAuth(t *testing.T) {
	s := newShell(t)
	s.want(t, exitNotFound, "auth", "add", "node", "gpu-1")
	s.want(t, exitOK, "auth", "init", "--server", "nats://n1:4222")
	s.want(t, exitOK, "auth", "add", "node", "gpu-1")
	out, note := s.want(t, exitOK, "auth", "add", "tenant", "acme", "--server", "nats://n2:4222")
	if !strings.Contains(out, "tenant-acme.nk") || !strings.Contains(note, "nats-server --signal reload") {
		t.Errorf("add says %q and %q", out, note)
	}
	out, _ = s.want(t, exitOK, "auth", "ls", "--json")
	var users []listedUser
	if err := json.Unmarshal([]byte(out), &users); err != nil || len(users) != 4 {
		t.Fatalf("ls: %v, %+v", err, users)
	}
	conf := read(t, "vramjet-auth/auth.conf")
	for _, u := range users {
		name := string(u.Role) + "-" + u.Name
		seed := strings.TrimSpace(read(t, "vramjet-auth/"+name+".nk"))
		if !strings.HasPrefix(seed, "SU") || !strings.Contains(conf, u.Key) || strings.Contains(conf, seed) {
			t.Errorf("%s: auth.conf is to hold its public key and not its seed", name)
		}
		for _, ext := range []string{".nk", ".json"} {
			info, err := os.Stat("vramjet-auth/" + name + ext)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s%s: %v, %v", name, ext, info.Mode(), err)
			}
		}
		var c natsContext
		if err := json.Unmarshal([]byte(read(t, u.Context)), &c); err != nil || c.InboxPrefix != u.InboxPrefix || !filepath.IsAbs(c.NKey) {
			t.Errorf("%s: its context is %+v, %v", name, c, err)
		}
		if want := map[string]string{"acme": "nats://n2:4222"}[u.Name]; want != "" && c.URL != want || want == "" && c.URL != "nats://n1:4222" {
			t.Errorf("%s: its server is %s", name, c.URL)
		}
	}
	s.want(t, exitOK, "auth", "revoke", "tenant", "acme")
	if strings.Contains(read(t, "vramjet-auth/auth.conf"), "acme") {
		t.Error("a tenant who is revoked is still in auth.conf")
	}
	if _, err := os.Stat("vramjet-auth/tenant-acme.nk"); err == nil {
		t.Error("a seed is left that is worth nothing")
	}
	s.want(t, exitNotFound, "auth", "revoke", "tenant", "acme")
	s.want(t, exitOK, "auth", "add", "tenant", "acme")
}

// TestAuthChangesNoUser: what is there is not made anew, and a seed is never overwritten.
func TestAuthChangesNoUser(t *testing.T) {
	s := newShell(t)
	s.want(t, exitOK, "auth", "init")
	before, seed := read(t, "vramjet-auth/auth.conf"), read(t, "vramjet-auth/dispatcher-main.nk")
	if out, note := s.want(t, exitOK, "auth", "init"); out != "" || !strings.Contains(note, "none was changed") {
		t.Errorf("init again says %q and %q", out, note)
	}
	s.want(t, exitFailed, "auth", "add", "dispatcher", "main")
	s.want(t, exitUsage, "auth", "add", "king", "ana")
	s.want(t, exitUsage, "auth", "add", "tenant", "a.b")
	s.want(t, exitUsage, "auth", "add", "tenant", "*")
	write(t, "vramjet-auth/tenant-stray.nk", "not a user's")
	if _, note := s.want(t, exitFailed, "auth", "add", "tenant", "stray"); !strings.Contains(note, "tenant-stray.nk") {
		t.Errorf("a file in the way: %q", note)
	}
	if read(t, "vramjet-auth/tenant-stray.nk") != "not a user's" {
		t.Error("a file in the way was overwritten")
	}
	write(t, "vramjet-auth/auth.conf.new", "")
	s.want(t, exitFailed, "auth", "add", "tenant", "other") // somebody else is at it
	if err := os.Remove("vramjet-auth/auth.conf.new"); err != nil {
		t.Fatal(err)
	}
	if read(t, "vramjet-auth/auth.conf") != before || read(t, "vramjet-auth/dispatcher-main.nk") != seed {
		t.Error("a user was changed")
	}
	s.want(t, exitOK, "auth", "revoke", "operator", "admin")
	s.want(t, exitFailed, "auth", "revoke", "dispatcher", "main") // the last

	write(t, "vramjet-auth/auth.conf", "authorization { users: [] }")
	if _, note := s.want(t, exitFailed, "auth", "add", "tenant", "acme"); !strings.Contains(note, "not made by vramjet auth") {
		t.Errorf("somebody else's auth.conf: %q", note)
	}
}

// TestAuthIsNotShown: a seed in use is shown nowhere.
func TestAuthIsNotShown(t *testing.T) {
	s := newShell(t)
	s.want(t, exitOK, "auth", "init")
	seed := strings.TrimSpace(read(t, "vramjet-auth/operator-admin.nk"))
	write(t, "vramjet.yaml", "nats: {url: \"nats://127.0.0.1:1\", nkey: vramjet-auth/operator-admin.nk, inbox_prefix: _INBOX.vj.operator.admin}\n")
	for _, args := range [][]string{{"config", "show"}, {"config", "check"}, {"nodes", "--log-level", "debug"}, {"auth", "ls"}} {
		_, out, note := s.run(args...)
		if strings.Contains(out+note, seed) {
			t.Errorf("vramjet %q shows the seed", args)
		}
	}
}

// TestContextFile: a context can be named by its file, from where one is.
func TestContextFile(t *testing.T) {
	newShell(t)
	cfg := NATS{Context: "vramjet-auth/tenant-acme.json", InboxPrefix: "_INBOX_acme"}
	got := cfg.connect(sources{}, func(string) string { return "" })
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got.Context != filepath.Join(here, "vramjet-auth", "tenant-acme.json") || got.InboxPrefix != "_INBOX_acme" {
		t.Errorf("it connects by %+v", got)
	}
	if got := (&NATS{Context: "prod"}).connect(sources{}, func(string) string { return "" }); got.Context != "prod" {
		t.Errorf("a name became %q", got.Context)
	}
}

// TestAuthRoles: the command knows the roles that there are.
func TestAuthRoles(t *testing.T) {
	s := newShell(t)
	s.want(t, exitOK, "auth", "init")
	for _, r := range broker.Roles {
		s.want(t, exitOK, "auth", "add", string(r), "x")
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
