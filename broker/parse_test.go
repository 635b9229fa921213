package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

func FuzzStored(f *testing.F) {
	for _, s := range []string{
		`{"stream":"VJ_RESULTS","seq":1}`,
		`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"},"stream":"VJ_RESULTS","seq":0}`,
		`{"stream":""}`, `{"error":null}`, `null`, `[]`, ``, `-ERR`, `{"error":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := stored(&nats.Msg{Data: data}); err == nil && !strings.Contains(strings.ToLower(string(data)), "stream") {
			t.Errorf("%q counts as stored", data)
		}
	})
}

func FuzzReadObject(f *testing.F) {
	for _, s := range []string{
		`{"name":"default.x","bucket":"VJ_BODIES","nuid":"A1","size":3,"mtime":"0001-01-01T00:00:00Z","chunks":1,"digest":"SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}`,
		`{"nuid":">","digest":"SHA-256="}`, `{"deleted":true}`, `{"options":{"link":{"bucket":"x"}}}`, `null`, `[]`, ``, `{"size":-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := readObject("default.x", data)
		if err == nil && (!schemas.ValidToken(o.NUID) || o.Deleted || o.Opts != nil && o.Opts.Link != nil) {
			t.Errorf("%q counts as an object", data)
		}
		if e, ok := errors.AsType[*schemas.Error](err); err != nil && (!ok || e.Code != schemas.InvalidRequest) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

func TestStored(t *testing.T) {
	for reply, want := range map[string]string{
		`{"stream":"S","seq":1}`:                  "",
		`{"stream":"S","duplicate":true,"seq":1}`: "",
		`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`: "maximum bytes exceeded",
		`{}`:    "somebody other than a stream",
		`hello`: "somebody other than a stream",
	} {
		switch err := stored(&nats.Msg{Data: []byte(reply)}); {
		case err == nil && want != "", err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%s is taken as %v", reply, err)
		}
	}
}

func TestSplitURL(t *testing.T) {
	for list, want := range map[string]string{
		"nats://a:1":           "nats://a:1",
		"a:1, tls://b , ":      "nats://a:1 tls://b",
		"u:p@a":                "nats://u:p@a",
		"ws://a:1,wss://b:443": "ws://a:1 wss://b:443",
		" , ":                  "error",
		"nats://":              "error",
		"nats://a:port":        "error",
	} {
		servers, err := splitURL(list)
		got := strings.Join(servers, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q is split into %q, want %q", list, got, want)
		}
	}
}

// An identity that is set leaves nothing of the context's.
func TestIdentityIsWhole(t *testing.T) {
	o := nats.Options{
		User: "mallory", Password: "x", Token: "x", Nkey: "x",
		UserJWT:     func() (string, error) { return "x", nil },
		SignatureCB: func([]byte) ([]byte, error) { return nil, nil },
	}
	opts, err := identityOptions(&ConnectConfig{User: "alice", Password: "y"})
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range opts {
		if err := set(&o); err != nil {
			t.Fatal(err)
		}
	}
	if o.User != "alice" || o.Password != "y" || o.Token != "" || o.Nkey != "" || o.UserJWT != nil || o.SignatureCB != nil {
		t.Errorf("the identity is mixed: %+v", o)
	}
}

// What an auth.conf says is a user that may be, or an error.
func FuzzReadAuthorization(f *testing.F) {
	f.Add(WriteAuthorization([]User{{Role: RoleTenant, Name: "acme", Key: "UA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCTYM5"}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := ReadAuthorization(text)
		for _, u := range users {
			if err == nil && u.check() != nil {
				t.Errorf("%+v: %v", u, u.check())
			}
		}
	})
}
