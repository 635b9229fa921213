package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"
)

// DefaultURL is where NATS is looked for when nothing says where it is.
const DefaultURL = nats.DefaultURL

// How a connection notices that the server is gone, and how it comes back: a
// dead server is noticed after 4 to 6 s, about when a cluster has elected another leader
// (4 to 9 s), and a closed connection at once.
//
// While a write waits for room in the connection, no ping is sent or missed: a busy
// connection to a dead server lasts for writeTimeout. By default that is a minute, and
// the next write waits as long.
const (
	dialTimeout     = 2 * time.Second // for each server
	pingInterval    = 2 * time.Second
	pingsOut        = 2
	writeTimeout    = 10 * time.Second
	reconnectWait   = 100 * time.Millisecond
	reconnectJitter = 100 * time.Millisecond
)

// ConnectConfig says where NATS is and who connects. The zero ConnectConfig
// connects to DefaultURL as nobody.
//
// At most one of Creds, NKey, User and Token may be set. What is set here wins
// over what the Context says: each field by itself, the identity as a whole.
type ConnectConfig struct {
	URL     string // one or several, separated by commas; "": the Context's, else DefaultURL
	Context string // a context of the nats command line: its name, or the absolute path of its file

	Creds    string // path of a .creds file
	NKey     string // path of a file with an nkey's seed
	User     string
	Password string
	Token    string

	CA   string // path of a PEM file: whom to trust
	Cert string // path of a PEM file: the client's certificate, with Key
	Key  string // path of a PEM file

	Name        string // shown by the server's monitoring; "": vramjet
	InboxPrefix string // of reply subjects, where permissions ask for one; "": _INBOX

	// InProcess connects to a server in this process, without a socket. URL is
	// ignored then.
	InProcess nats.InProcessConnProvider
}

// Connect connects to NATS. It tries each server once: to wait for a server that
// is not up yet is the caller's business. Once connected, the connection comes
// back by itself for as long as it is not closed; each loss and each return is
// logged, and so is whatever the server does not permit.
//
// The error names the server and says what to do. Neither it nor the log holds
// a password, a token or a user of a URL.
func Connect(ctx context.Context, cfg ConnectConfig, log *slog.Logger) (*nats.Conn, error) {
	opts, err := connectOptions(&cfg, log)
	if err != nil {
		return nil, err
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result)
	go func() { // ends when every server was tried, at dialTimeout each
		nc, err := dial(&cfg, opts, log)
		select {
		case done <- result{nc, err}:
		case <-ctx.Done():
			if nc != nil {
				nc.Close()
			}
		}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, connectError(&cfg, r.err)
		}
		return r.nc, nil
	case <-ctx.Done():
		return nil, connectError(&cfg, context.Cause(ctx))
	}
}

func dial(cfg *ConnectConfig, opts []nats.Option, log *slog.Logger) (*nats.Conn, error) {
	if cfg.Context == "" || cfg.InProcess != nil {
		return nats.Connect(cfg.URL, opts...)
	}
	nc, settings, err := natscontext.Connect(cfg.Context, opts...)
	if err == nil && (settings.JSDomain != "" || settings.JSAPIPrefix != "") {
		log.Warn("the context's JetStream domain is not used", "context", cfg.Context)
	}
	return nc, err
}

// connectOptions checks cfg and turns it into options.
func connectOptions(cfg *ConnectConfig, log *slog.Logger) ([]nats.Option, error) {
	identity, err := identityOptions(cfg)
	if err != nil {
		return nil, err
	}
	for server := range strings.SplitSeq(cfg.URL, ",") {
		if s := strings.TrimSpace(server); strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
			return nil, fmt.Errorf("connect to NATS at %s: that is an address of HTTP, and NATS is mostly on port 4222: nats://host:4222", Redact(s))
		}
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, errors.New("connect to NATS: a client certificate needs both its file and its key's file")
	}
	name := cfg.Name
	if name == "" {
		name = "vramjet"
	}
	opts := append(identity,
		nats.Name(name),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // credentials are renewed while we run
	)
	opts = append(opts, handlers(log)...)
	if cfg.CA != "" {
		opts = append(opts, nats.RootCAs(cfg.CA))
	}
	if cfg.Cert != "" {
		opts = append(opts, nats.ClientCert(cfg.Cert, cfg.Key))
	}
	if cfg.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(cfg.InboxPrefix))
	}
	switch {
	case cfg.InProcess != nil:
		opts = append(opts, nats.InProcessServer(cfg.InProcess))
	case cfg.URL != "":
		servers, err := splitURL(cfg.URL)
		if err != nil {
			return nil, err
		}
		opts = append(opts, func(o *nats.Options) error {
			o.Url, o.Servers = "", servers
			return nil
		})
	}
	return opts, nil
}

// identityOptions returns what makes the connection the one of cfg's user, and
// nobody else's.
func identityOptions(cfg *ConnectConfig) ([]nats.Option, error) {
	var chosen []nats.Option
	if cfg.Creds != "" {
		chosen = append(chosen, nats.UserCredentials(cfg.Creds))
	}
	if cfg.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(cfg.NKey)
		if err != nil {
			return nil, fmt.Errorf("connect to NATS: read the nkey seed %s: %w", cfg.NKey, err)
		}
		chosen = append(chosen, nkey)
	}
	if cfg.User != "" {
		chosen = append(chosen, nats.UserInfo(cfg.User, cfg.Password))
	}
	if cfg.Token != "" {
		chosen = append(chosen, nats.Token(cfg.Token))
	}
	switch len(chosen) {
	case 0:
		return nil, nil
	case 1:
		return append([]nats.Option{forgetIdentity}, chosen...), nil
	default:
		return nil, errors.New("connect to NATS: set one of creds, nkey, user and token, not several")
	}
}

// forgetIdentity drops the user that a context has set.
func forgetIdentity(o *nats.Options) error {
	o.User, o.Password, o.Token, o.Nkey = "", "", "", ""
	o.UserJWT, o.SignatureCB = nil, nil
	return nil
}

func handlers(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: closed by us
				log.Warn("disconnected from NATS", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("reconnected to NATS", "nats", nc.ConnectedAddr())
		}),
		nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
			switch {
			case errors.Is(err, nats.ErrPermissionViolation):
				log.Error("not permitted by NATS", "err", err)
			case sub != nil:
				log.Warn("error of a NATS subscription", "subject", sub.Subject, "err", err)
			default:
				log.Warn("error of the NATS connection", "nats", nc.ConnectedAddr(), "err", err)
			}
		}),
	}
}

// connectError says where no connection could be made, why, and what to do.
func connectError(cfg *ConnectConfig, err error) error {
	where := Redact(cfg.URL)
	switch {
	case cfg.InProcess != nil:
		where = "the server in this process"
	case where == "" && cfg.Context != "":
		where = fmt.Sprintf("the servers of context %q", cfg.Context)
	case where == "":
		where = DefaultURL
	}
	if _, ok := errors.AsType[*url.Error](err); ok { // its text repeats the URL
		return fmt.Errorf("connect to NATS at %s: a URL there is not one such as nats://host:4222", where)
	}
	return fmt.Errorf("connect to NATS at %s: %w%s", where, err, connectHint(cfg, err))
}

// connectHint says what to do about an error; "" where that is not known.
func connectHint(cfg *ConnectConfig, err error) string {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	alert, _ := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, nats.ErrNoServers):
		return ": check that a server runs there, or name another URL"
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return ": check the credentials"
	case errors.Is(err, nats.ErrTimeout), alert != nil && alert.Timeout():
		return ": check that it is a NATS server (mostly on port 4222), and that it can be reached from here"
	case untrusted:
		return ": name the authority of the server's certificate (ca)"
	case cfg.Cert == "" && (errors.Is(err, nats.ErrTLS) || alert != nil && alert.Op == "remote error"):
		return ": does the server want a certificate of the client (cert, key)?"
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrTLS):
		return ": check the TLS settings"
	default:
		return ""
	}
}

// splitURL returns the servers of a list separated by commas.
func splitURL(list string) ([]string, error) {
	var servers []string
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			continue
		}
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		if u, err := url.Parse(s); err != nil || u.Host == "" {
			return nil, fmt.Errorf("connect to NATS: %q is not a URL such as nats://host:4222", Redact(s))
		}
		servers = append(servers, s)
	}
	if len(servers) == 0 {
		return nil, errors.New("connect to NATS: the URL is blank")
	}
	return servers, nil
}

// Redact returns a list of URLs, separated by commas, as it may be shown:
// without whoever stands before an '@'.
func Redact(list string) string {
	if list == "" {
		return ""
	}
	parts := strings.Split(list, ",")
	for i, s := range parts {
		s = strings.TrimSpace(s)
		scheme, rest, _ := strings.Cut(s, "://")
		switch scheme {
		case "nats", "tls", "ws", "wss":
		default: // a part of a password, perhaps
			scheme, rest = "nats", s
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			rest = "***" + rest[at:]
		} else if _, err := url.Parse(scheme + "://" + rest); err != nil {
			rest = "***" // cut in a password, perhaps
		}
		parts[i] = scheme + "://" + rest
	}
	return strings.Join(parts, ",")
}
