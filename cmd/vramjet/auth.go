package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/vramjet/vramjet/broker"
)

// authCmd keeps the users of the NATS servers.
type authCmd struct {
	Ls     authLsCmd     `cmd:"" default:"withargs" help:"List the users."`
	Init   authInitCmd   `cmd:"" help:"Make the directory, with a dispatcher and an operator."`
	Add    authAddCmd    `cmd:"" help:"Add a user: a tenant, a node, a service, an operator or a viewer."`
	Revoke authRevokeCmd `cmd:"" help:"Remove a user."`
}

// authFlags say where the users are.
type authFlags struct {
	Dir string `default:"vramjet-auth" placeholder:"DIR" help:"Directory of the users (default: ./${default})."`
}

// authUser names a user.
type authUser struct {
	Role string `arg:"" enum:"dispatcher,node,tenant,service,operator,viewer" help:"dispatcher, node, tenant, service, operator or viewer."`
	Name string `arg:"" help:"The node's, the tenant's or the service's; of others, any."`
}

const reloadHint = "copy auth.conf to each NATS server, and tell it: nats-server --signal reload"

// twiceHint is about accounts that are new: a server sets up what they import only when
// it is told of them again.
const twiceHint = "then once more: a server lets a new tenant or viewer work by the second reload"

type authInitCmd struct{ authFlags }

// Help is shown below the command's summary.
func (*authInitCmd) Help() string {
	return `Writes auth.conf, which the configuration of each NATS server includes, and the users dispatcher main and operator admin. auth.conf holds public keys only. Each user has a seed, NAME.nk, which is its secret, and NAME.json, a context of the nats command that points to it. Run again, it brings auth.conf up to date with this version of vramjet, and changes no user.

Examples:

    vramjet auth init --server nats://10.0.0.1:4222
    vramjet dispatcher --context vramjet-auth/dispatcher-main.json
`
}

// Run makes the directory.
func (c *authInitCmd) Run(a *app) error {
	d, err := openAuthDir(c.Dir)
	if err != nil {
		return err
	}
	cfg, _, err := a.load(nil)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	fresh := false
	err = d.change(func(users []broker.User) ([]broker.User, error) {
		if fresh = len(users) == 0; !fresh {
			return users, nil
		}
		dispatcher, err := d.create(broker.RoleDispatcher, "main", cfg.NATS.URL)
		if err != nil {
			return nil, err
		}
		operator, err := d.create(broker.RoleOperator, "admin", cfg.NATS.URL)
		if err != nil {
			return nil, errors.Join(err, d.remove(&dispatcher))
		}
		return []broker.User{dispatcher, operator}, nil
	})
	if err != nil {
		return err
	}
	if !fresh {
		a.note("%s has users: none was changed, and what they may do is up to date", d.conf())
		a.note("next: %s", reloadHint)
		return nil
	}
	fmt.Fprintf(a.out, "%s: the users dispatcher main and operator admin\n", d.conf())
	a.note("next: put it beside the configuration of each NATS server, with the line  include auth.conf  there, and start the server anew")
	return nil
}

type authAddCmd struct {
	authFlags
	authUser
}

// Help is shown below the command's summary.
func (*authAddCmd) Help() string {
	return `A node's name is what its worker is called (--node), a tenant's is what stands in the subjects of its jobs, and a service's is the name of a backend of the kind rpc. docs/security.md says what each role may do.

Examples:

    vramjet auth add node gpu-1
    vramjet worker --node gpu-1 --context vramjet-auth/node-gpu-1.json
    vramjet auth add tenant acme
    vramjet submit --tenant acme --context vramjet-auth/tenant-acme.json --model llama3.2 "Why?"
`
}

// Run adds the user.
func (c *authAddCmd) Run(a *app) error {
	d, err := openAuthDir(c.Dir)
	if err != nil {
		return err
	}
	cfg, from, err := a.load(nil)
	if err != nil {
		return err
	}
	if _, err := d.known(); err != nil {
		return err
	}
	var added broker.User
	err = d.change(func(users []broker.User) ([]broker.User, error) {
		if find(users, broker.Role(c.Role), c.Name) >= 0 {
			return nil, fmt.Errorf("there is a %s %s: vramjet auth revoke removes it", c.Role, c.Name)
		}
		url := cfg.NATS.URL
		if from["nats.url"].rank == byDefault && len(users) > 0 {
			url = cmp.Or(d.urlOf(&users[0]), url) // what init was told
		}
		added, err = d.create(broker.Role(c.Role), c.Name, url)
		return append(users, added), err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s %s: seed %s, context %s\n", c.Role, c.Name, d.seed(&added), d.context(&added))
	a.note("next: %s", reloadHint)
	if added.Account() != broker.AccountMain {
		a.note("%s", twiceHint)
	}
	return nil
}

type authRevokeCmd struct {
	authFlags
	authUser
}

// Help is shown below the command's summary.
func (*authRevokeCmd) Help() string {
	return `Once the servers are told, they close the user's connections, and its seed is worth nothing any more, wherever there are copies of it. To give a user a new seed, revoke it, add it again, hand the new seed over, and then tell the servers: until then the old one works.

Examples:

    vramjet auth revoke tenant acme
`
}

// Run removes the user.
func (c *authRevokeCmd) Run(a *app) error {
	d, err := openAuthDir(c.Dir)
	if err != nil {
		return err
	}
	if _, err := d.known(); err != nil {
		return err
	}
	var revoked broker.User
	err = d.change(func(users []broker.User) ([]broker.User, error) {
		i := find(users, broker.Role(c.Role), c.Name)
		if i < 0 {
			return nil, &codedError{exitNotFound, fmt.Errorf("there is no %s %s (vramjet auth ls)", c.Role, c.Name)}
		}
		if len(users) == 1 {
			return nil, errors.New("this is the last user: servers without users let everybody in")
		}
		revoked = users[i]
		return append(users[:i], users[i+1:]...), nil
	})
	if err == nil {
		err = d.remove(&revoked)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s %s is revoked: its seed works until the servers are told\n", c.Role, c.Name)
	a.note("next: %s", reloadHint)
	return nil
}

type authLsCmd struct{ authFlags }

// Help is shown below the command's summary.
func (*authLsCmd) Help() string {
	return `Examples:

    vramjet auth ls
    vramjet auth ls --dir /etc/vramjet/auth --json
`
}

// A listedUser is a user as it is printed.
type listedUser struct {
	broker.User
	Account     string `json:"account"`
	InboxPrefix string `json:"inbox_prefix"`
	Context     string `json:"context"` // a file
}

// Run lists the users.
func (c *authLsCmd) Run(a *app) error {
	d, err := openAuthDir(c.Dir)
	if err != nil {
		return err
	}
	users, err := d.known()
	if err != nil {
		return err
	}
	listed := []listedUser{}
	for i := range users {
		u := &users[i]
		listed = append(listed, listedUser{*u, u.Account(), u.InboxPrefix(), d.context(u)})
	}
	if a.asJSON() {
		return a.printJSON(listed)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tNAME\tINBOXES\tPUBLIC KEY")
	for _, u := range listed {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", u.Role, u.Name, u.InboxPrefix, u.Key)
	}
	return w.Flush()
}
