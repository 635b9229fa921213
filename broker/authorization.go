package broker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/vramjet/vramjet/schemas"
)

// authorizationHead begins the file. It is how ReadAuthorization knows it.
const authorizationHead = `# Users of vramjet for nats-server. vramjet auth writes this file: what is changed by hand is lost.
# It holds public keys only. Put it beside the configuration of each server of a cluster, which says
#
#     include auth.conf
#
# and tell the servers of each change: nats-server --signal reload
`

// WriteAuthorization returns the accounts of a NATS server's configuration for users, in
// the order of their roles and names.
func WriteAuthorization(users []User) []byte {
	users = slices.SortedFunc(slices.Values(users), compareUsers)
	var tenants []string
	for i := range users {
		if users[i].Role == RoleTenant {
			tenants = append(tenants, users[i].Name)
		}
	}
	w := authorizationWriter{tenants: tenants}
	w.line("accounts {")
	w.main(users)
	for i := range users {
		if u := &users[i]; u.Account() != AccountMain {
			w.fenced(u)
		}
	}
	w.line("}")
	return append([]byte(authorizationHead), w.Bytes()...)
}

type authorizationWriter struct {
	bytes.Buffer
	tenants []string
}

func (w *authorizationWriter) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// main writes the account with the streams, its users, and what the others may import.
func (w *authorizationWriter) main(users []User) {
	w.line("  %s {\n    jetstream: enabled\n    users: [", AccountMain)
	services, streams := map[string][]string{}, map[string][]string{} // subjects: accounts
	for i := range users {
		u := &users[i]
		if u.Account() == AccountMain {
			w.user(u)
			continue
		}
		p := PermissionsOf(u, w.tenants)
		for _, s := range p.Publish {
			services[s] = append(services[s], u.Account())
		}
		for _, s := range u.imported(&p) {
			streams[s] = append(streams[s], u.Account())
		}
	}
	w.line("    ]\n    exports: [\n      { service: %q }", noJetStream)
	for _, s := range slices.Sorted(maps.Keys(services)) {
		w.line("      { service: %q, response: %s, accounts: [%s] }", s, responsesTo(s), strings.Join(services[s], ", "))
	}
	for _, s := range slices.Sorted(maps.Keys(streams)) {
		w.line("      { stream: %q, accounts: [%s] }", s, strings.Join(streams[s], ", "))
	}
	w.line("    ]\n  }")
}

// A server answers what an account asks of JetStream with an error of its own, beside the
// one answer that is meant, unless the account imports this subject: here, from nowhere.
const (
	jetStreamInfo = "$JS.API.INFO"
	noJetStream   = "vj.none"
)

// fenced writes the account of a user that has one of its own.
func (w *authorizationWriter) fenced(u *User) {
	w.line("  %s {\n    users: [", u.Account())
	w.user(u)
	w.line("    ]\n    imports: [\n      { service: { account: %s, subject: %q }, to: %q }", AccountMain, noJetStream, jetStreamInfo)
	p := PermissionsOf(u, w.tenants)
	for _, s := range p.Publish {
		w.line("      { service: { account: %s, subject: %q } }", AccountMain, s)
	}
	for _, s := range u.imported(&p) {
		w.line("      { stream: { account: %s, subject: %q } }", AccountMain, s)
	}
	w.line("    ]\n  }")
}

// imported lists what the user hears from the account with the streams. The inbox of a
// tenant is a part of that, since its jobs may be answered there.
func (u *User) imported(p *Permissions) []string {
	if u.Role == RoleTenant {
		return p.Subscribe
	}
	return slices.DeleteFunc(slices.Clone(p.Subscribe), func(s string) bool { return s == u.InboxPrefix()+".>" })
}

// responsesTo says how many answers there may be to a request. A pull is answered by
// many messages.
func responsesTo(subject string) string {
	if strings.HasPrefix(subject, "$JS.API.CONSUMER.MSG.NEXT.") {
		return "stream"
	}
	return "singleton"
}

// userMark begins the line above a user: role and name follow. userStart begins that
// with its key.
const (
	userMark  = "      # "
	userStart = "      { nkey: "
)

func (w *authorizationWriter) user(u *User) {
	p := PermissionsOf(u, w.tenants)
	w.line("%s%s %s", userMark, u.Role, u.Name)
	w.line("%s%s, permissions: {", userStart, u.Key)
	if p.Respond { // for as long as the longest job that a service may have
		w.line("          allow_responses: { max: -1, expires: \"1h\" }")
	}
	w.subjects("publish", slices.Concat(p.Publish, p.Local))
	w.subjects("subscribe", slices.Concat(p.Subscribe, p.Local))
	w.line("      } }")
}

// subjects writes a list of subjects, one a line. No list at all would allow everything,
// but for who may respond.
func (w *authorizationWriter) subjects(what string, subjects []string) {
	if len(subjects) == 0 {
		return
	}
	w.line("          %s: [", what)
	for _, s := range subjects {
		w.line("            %q", s)
	}
	w.line("          ]")
}

func compareUsers(a, b User) int {
	return cmp.Or(slices.Index(Roles, a.Role)-slices.Index(Roles, b.Role), strings.Compare(a.Name, b.Name))
}

var errForeign = errors.New("it was not made by vramjet auth")

// ReadAuthorization returns the users of what WriteAuthorization wrote, by this version
// or another: it reads who they are, and not what they may do.
func ReadAuthorization(text []byte) ([]User, error) {
	first, _, _ := strings.Cut(authorizationHead, "\n")
	if !bytes.HasPrefix(text, []byte(first+"\n")) {
		return nil, errForeign
	}
	var users []User
	var mark string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		key, isUser := strings.CutPrefix(line, userStart)
		if !isUser {
			mark = line
			continue
		}
		role, name, _ := strings.Cut(strings.TrimPrefix(mark, userMark), " ")
		key, _, _ = strings.Cut(key, ",")
		u := User{Role: Role(role), Name: name, Key: key}
		if err := u.check(); err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}

// check reports what is wrong with a user.
func (u *User) check() error {
	switch {
	case !slices.Contains(Roles, u.Role):
		return fmt.Errorf("there is no role %q", u.Role)
	case !schemas.ValidToken(u.Name):
		return fmt.Errorf("the name %q of a %s is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", u.Name, u.Role)
	case !nkeys.IsValidPublicUserKey(u.Key):
		return fmt.Errorf("%q, of the %s %s, is no public nkey of a user", u.Key, u.Role, u.Name)
	default:
		return nil
	}
}

// NewUser makes a user, and the seed that proves it: a secret, which nobody else has.
func NewUser(role Role, name string) (u User, seed []byte, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return User{}, nil, fmt.Errorf("make a key: %w", err)
	}
	key, err := pair.PublicKey()
	if err == nil {
		seed, err = pair.Seed()
	}
	if err != nil {
		return User{}, nil, fmt.Errorf("make a key: %w", err)
	}
	u = User{Role: role, Name: name, Key: key}
	return u, seed, u.check()
}
