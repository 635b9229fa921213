package dashboard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

const (
	// actWithin is how long an action may take.
	actWithin = 20 * time.Second

	// mostRetries is how many dead letters one action may retry.
	mostRetries = 100

	maxAction = 64 << 10 // bytes of a request
)

// An action is something that somebody wants done.
type action struct {
	Do string `json:"do"` // check, drain, undrain, pause, resume or retry

	Node string `json:"node"` // of drain and undrain

	// Of pause and resume.
	Tenant string        `json:"tenant"`
	Class  schemas.Class `json:"class"`
	Model  string        `json:"model"`

	Letters []letterNamed `json:"letters"` // of retry
}

// letterNamed names a dead letter.
type letterNamed struct {
	Tenant string `json:"tenant"`
	Seq    uint64 `json:"seq"`
}

// errWrong says that an action is not one that can be done.
var errWrong = errors.New("no such action")

// act does something for somebody who has the token. That the body must be JSON keeps
// out forms of foreign pages; that it is not from one was checked before.
func (d *Dashboard) act(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil || kind != "application/json":
		refuse(w, http.StatusUnsupportedMediaType, "the content type is not application/json")
		return
	case d.opts.Token == "":
		refuse(w, http.StatusForbidden, "nothing can be done from here: set http_token to allow it")
		return
	case !d.knows(r):
		d.opts.Logger.Warn("an action on the dashboard was turned down: wrong token", "from", r.RemoteAddr)
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, http.StatusUnauthorized, "the token is wrong")
		return
	}
	var a action
	read := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAction))
	read.DisallowUnknownFields()
	if err := read.Decode(&a); err != nil {
		refuse(w, http.StatusBadRequest, "the body is no action: "+err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actWithin)
	defer cancel()
	did, err := d.do(ctx, &a, r.RemoteAddr)
	d.told(ctx, &a, did, err, r.RemoteAddr)
	switch {
	case errors.Is(err, errWrong):
		refuse(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrNoNode):
		refuse(w, http.StatusNotFound, err.Error())
	case err != nil:
		refuse(w, http.StatusBadGateway, err.Error())
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(encode(map[string]string{"done": did})) // fails only where nobody is there any more
	}
}

// knows reports whether a request has the token. How long that takes does not depend on
// how much of it is right.
func (d *Dashboard) knows(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(d.opts.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// do does it, and says what was done.
func (d *Dashboard) do(ctx context.Context, a *action, from string) (did string, err error) {
	if a.Do == "check" {
		return "the token is right", nil
	}
	c, err := client.New(d.nc, client.Options{Tenant: a.Tenant})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errWrong, err)
	}
	flow := schemas.Filter{Class: a.Class, Model: a.Model}
	switch a.Do {
	case "drain", "undrain":
		_, err := c.Control(ctx, a.Node, schemas.ControlRequest{Do: a.Do})
		return a.Do + " node " + a.Node, err
	case "pause", "resume":
		if a.Tenant == "" || a.Class == "" || a.Model == "" {
			return "", fmt.Errorf("%w: %s needs tenant, class and model", errWrong, a.Do)
		}
		if a.Do == "pause" {
			_, err = c.PauseFlows(ctx, flow, "the dashboard, from "+from)
		} else {
			_, err = c.ResumeFlows(ctx, flow)
		}
		return a.Do + " " + flow.Describe() + " of tenant " + a.Tenant, err
	case "retry":
		return d.retry(ctx, a.Letters)
	default:
		return "", fmt.Errorf("%w: %q is none of check, drain, undrain, pause, resume and retry", errWrong, a.Do)
	}
}

// retry submits the jobs of dead letters again.
func (d *Dashboard) retry(ctx context.Context, letters []letterNamed) (did string, err error) {
	if len(letters) == 0 || len(letters) > mostRetries {
		return "", fmt.Errorf("%w: retry takes 1 to %d letters", errWrong, mostRetries)
	}
	var problems []error
	var ids []string
	for _, l := range letters {
		c, err := client.New(d.nc, client.Options{Tenant: l.Tenant})
		if err != nil {
			return "", fmt.Errorf("%w: %w", errWrong, err)
		}
		ticket, err := c.RetryLetter(ctx, l.Seq)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		ids = append(ids, ticket.ID)
	}
	did = fmt.Sprintf("retried %d of %d dead letters", len(ids), len(letters))
	if len(letters) == 1 && len(ids) == 1 {
		did = "retried as job " + ids[0]
	}
	return did, errors.Join(problems...)
}

// told logs what was done, and has it shown.
func (d *Dashboard) told(ctx context.Context, a *action, did string, err error, from string) {
	if a.Do == "check" || errors.Is(err, errWrong) {
		return
	}
	if err != nil {
		d.opts.Logger.Warn("not done from the dashboard", "do", a.Do, "what", did, "from", from, "err", err)
		did += ": failed"
	} else {
		d.opts.Logger.Info("done from the dashboard", "do", a.Do, "what", did, "from", from)
	}
	e := eventView{At: time.Now(), What: "operator", Node: a.Node, Note: did}
	d.update(ctx, func(b *board) { b.note(e) })
	d.lookNow()
}
