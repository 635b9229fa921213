package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vramjet/vramjet/broker"
)

// An authDir is the directory of vramjet auth: auth.conf, which says who the users are
// and what they may do, and for each user its seed and a context of the nats command.
type authDir struct{ path string } // absolute

func openAuthDir(path string) (authDir, error) {
	abs, err := filepath.Abs(path)
	return authDir{abs}, err //nolint:wrapcheck // the working directory is gone
}

func (d authDir) conf() string { return filepath.Join(d.path, "auth.conf") }

func fileName(u *broker.User) string { return string(u.Role) + "-" + u.Name }

func (d authDir) seed(u *broker.User) string    { return filepath.Join(d.path, fileName(u)+".nk") }
func (d authDir) context(u *broker.User) string { return filepath.Join(d.path, fileName(u)+".json") }

// users reads who there is. made is false where there is no auth.conf yet.
func (d authDir) users() (users []broker.User, made bool, err error) {
	text, err := os.ReadFile(d.conf())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("read the users: %w", err)
	}
	if users, err = broker.ReadAuthorization(text); err != nil {
		return nil, false, fmt.Errorf("read the users in %s: %w", d.conf(), err)
	}
	return users, true, nil
}

// known is users where there must be an auth.conf.
func (d authDir) known() ([]broker.User, error) {
	users, made, err := d.users()
	if err == nil && !made {
		err = &codedError{exitNotFound, fmt.Errorf("there is no %s: vramjet auth init makes it (--dir says where)", d.conf())}
	}
	return users, err
}

// find returns where among users one of a role and a name is; -1: nowhere.
func find(users []broker.User, role broker.Role, name string) int {
	return slices.IndexFunc(users, func(u broker.User) bool { return u.Role == role && u.Name == name })
}

// change has do change the users, and writes auth.conf anew: whole, or not at all. One
// process at a time does it: the new file is the lock.
func (d authDir) change(do func(users []broker.User) ([]broker.User, error)) (err error) {
	next := d.conf() + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there: another vramjet auth is at it, or was killed; remove it if none is", next)
	}
	if err != nil {
		return fmt.Errorf("write the users: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(next))
		}
	}()
	users, _, err := d.users()
	if err == nil {
		users, err = do(users)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.Write(broker.WriteAuthorization(users))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, d.conf())
	}
	if err != nil {
		return fmt.Errorf("write the users: %w", err)
	}
	return nil
}

// create makes a user and its files, which must not be there yet.
func (d authDir) create(role broker.Role, name, url string) (broker.User, error) {
	u, seed, err := broker.NewUser(role, name)
	if err != nil {
		return u, usage(err)
	}
	context, err := json.MarshalIndent(natsContext{
		Description: fmt.Sprintf("vramjet: %s %s", role, name),
		URL:         url, NKey: d.seed(&u), InboxPrefix: u.InboxPrefix(),
	}, "", "  ")
	if err != nil {
		return u, err //nolint:wrapcheck // plain members
	}
	if err := writeNew(d.seed(&u), append(seed, '\n')); err != nil {
		return u, err
	}
	if err := writeNew(d.context(&u), append(context, '\n')); err != nil {
		return u, errors.Join(err, os.Remove(d.seed(&u)))
	}
	return u, nil
}

// natsContext is what of a context of the nats command is written.
type natsContext struct {
	Description string `json:"description"`
	URL         string `json:"url"`
	NKey        string `json:"nkey"` // a file
	InboxPrefix string `json:"inbox_prefix"`
}

// remove removes a user's files, as far as they are there.
func (d authDir) remove(u *broker.User) error {
	for _, file := range []string{d.seed(u), d.context(u)} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a file of a user who is revoked: %w", err)
		}
	}
	return nil
}

// urlOf returns the URL in a user's context; "" where that cannot be read.
func (d authDir) urlOf(u *broker.User) string {
	var c natsContext
	text, err := os.ReadFile(d.context(u))
	if err != nil || json.Unmarshal(text, &c) != nil {
		return ""
	}
	return c.URL
}

// writeNew writes a file that only its owner may read, and that must not be there yet: a
// seed is written once.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there, and of no user in auth.conf: move it away", name)
	}
	if err != nil {
		return fmt.Errorf("write a user's file: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
