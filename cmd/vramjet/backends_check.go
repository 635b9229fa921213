package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// A result is how a step of a check went.
type result string

// The results.
const (
	resultOK      result = "ok"
	resultWarning result = "warning" // it works, but not as well as it could
	resultFailed  result = "failed"
	resultSkipped result = "skipped" // there was nothing to check, or nobody asked for it
)

// A step is a part of a check.
type step string

// The steps, in their order.
const (
	stepReachable step = "reachable"
	stepKind      step = "kind"
	stepModels    step = "models"
	stepPressure  step = "pressure"
	stepKeys      step = "keys"
	stepTrial     step = "generation"
)

// A finding is what a step came to.
type finding struct {
	Step   step     `json:"step"`
	Result result   `json:"result"`
	Cause  cause    `json:"cause,omitempty"` // what happened, where there is something to do about it
	Text   string   `json:"text"`
	About  []string `json:"about,omitempty"` // the names that it is about: models, variables, addresses
}

// A checkedBackend is what was found out about a backend.
type checkedBackend struct {
	Name     string           `json:"name"` // "" where nothing was found
	Kind     string           `json:"kind"`
	URL      string           `json:"url"`
	Result   result           `json:"result"` // the worst of the findings
	Findings []finding        `json:"findings"`
	Models   []checkedModel   `json:"models"`
	Pressure *checkedPressure `json:"pressure,omitempty"`
	Trial    *trial           `json:"generation,omitempty"`
	Hints    []hint           `json:"hints"`
}

// A checkedModel is a model that the backend serves. Unknown is null, or not there.
type checkedModel struct {
	Name      string              `json:"name"`
	Kinds     []schemas.Kind      `json:"kinds"`
	Abilities []providers.Ability `json:"abilities"`
	State     schemas.ModelState  `json:"state"`
	VRAM      schemas.Amount      `json:"vram"`
	Need      schemas.Amount      `json:"need"`
	Slots     int                 `json:"slots,omitzero"`
	Context   int                 `json:"context,omitzero"`
}

// A checkedPressure is how busy a model is. What is not known is not there.
type checkedPressure struct {
	Model   string   `json:"model"`
	Running *int     `json:"running,omitempty"`
	Waiting *int     `json:"waiting,omitempty"`
	Slots   int      `json:"slots,omitzero"`
	KVUsed  *float64 `json:"kv_used,omitempty"`
}

// An inspector checks backends.
type inspector struct {
	finder   *backendFinder
	model    string        // to try; "": one that is loaded
	idle     bool          // none is to be tried
	root     string        // of the file system, where a container leaves its marks
	ports    []string      // where else a server may be, on a host that refuses
	patience time.Duration // for an answer that generates nothing
}

func newInspector(f *backendFinder, model string, idle bool) *inspector {
	return &inspector{finder: f, model: model, idle: idle, root: "/", ports: knownPorts(), patience: 10 * time.Second}
}

// An inspection is the check of one backend. It belongs to one goroutine.
type inspection struct {
	*inspector
	b         Backend
	at        *url.URL
	clean     *strings.Replacer // takes secrets out of texts
	transport *http.Transport
	asked     *asker       // the transport of client
	client    *http.Client // for questions of our own
	scene     situation
	absent    bool // an address where a server was looked for, and there is none
	out       checkedBackend
}

func newInspection(c *inspector, b Backend) *inspection {
	at, err := url.Parse(b.URL)
	if err != nil || b.URL == "" { // the configuration lets none through but a hosted API's that is not named
		at = &url.URL{}
	}
	k := &inspection{inspector: c, b: b, at: at, clean: cleaner(at, c.finder.keys(b.KeysEnv)), transport: newTransport(b.Timeouts.Connect)}
	k.asked = &asker{next: k.transport, keys: c.finder.keys(b.KeysEnv)}
	k.client = &http.Client{Transport: k.asked, Timeout: c.patience, CheckRedirect: stay}
	k.out = checkedBackend{Name: b.Name, URL: redact(b.URL), Models: []checkedModel{}}
	k.scene = situation{at: at, hosted: providers.Hosted(b.Kind), keys: b.KeysEnv}
	return k
}

// cleaner returns what takes secrets out of texts: keys, and what a URL holds.
func cleaner(at *url.URL, keys []providers.Key) *strings.Replacer {
	var pairs []string
	hide := func(secret, as string) {
		if secret != "" {
			pairs = append(pairs, secret, as)
		}
	}
	for _, k := range keys {
		hide(k.Secret(), "[key]")
	}
	hide(at.RawQuery, "redacted")
	for _, values := range at.Query() {
		for _, v := range values {
			if len(v) > 5 { // not a word such as true
				hide(v, "redacted")
			}
		}
	}
	if at.User != nil {
		hide(at.User.String(), "redacted")
	}
	return strings.NewReplacer(pairs...)
}

// run checks step by step, as far as it makes sense.
func (k *inspection) run(ctx context.Context) {
	if k.b.Kind != providers.KindRPC && k.b.URL != "" { // that one is no server, and speaks over NATS
		if !k.reach(ctx) || !k.identify(ctx) {
			return
		}
	}
	k.out.Kind = k.b.Kind
	backend, err := k.finder.backend(k.b)
	if err != nil {
		k.add(stepKind, resultFailed, "", err.Error())
		return
	}
	models, err := k.list(ctx, backend)
	if err == nil && len(models) > 0 {
		k.settings(ctx)
		k.busy(ctx, backend.Provider, models)
	}
	k.keys(ctx, err)
	if err == nil && len(models) > 0 || k.scene.hosted && k.model != "" && schemas.AsError(err).Code == schemas.Unsupported {
		k.try(ctx, backend, models)
	}
}

// add notes a finding.
func (k *inspection) add(s step, r result, c cause, text string, about ...string) {
	for i := range about {
		about[i] = k.clean.Replace(about[i])
	}
	k.out.Findings = append(k.out.Findings, finding{Step: s, Result: r, Cause: c, Text: k.clean.Replace(text), About: about})
}

// result sums up.
func (k *inspection) result() checkedBackend {
	severity := []result{resultSkipped, resultOK, resultWarning, resultFailed}
	k.out.Result = resultSkipped
	for _, f := range k.out.Findings {
		if slices.Index(severity, f.Result) > slices.Index(severity, k.out.Result) {
			k.out.Result = f.Result
		}
	}
	if k.absent {
		k.out.Result = resultSkipped
	}
	k.scene.kind = k.b.Kind
	k.out.Kind = k.b.Kind
	k.out.Hints = hints(&k.scene, k.out.Findings)
	return k.out
}

// list lists the models.
func (k *inspection) list(ctx context.Context, backend worker.Backend) ([]providers.Model, error) {
	short, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	all, err := backend.Provider.Models(short)
	if err != nil {
		k.listFailed(ctx, err)
		return nil, err
	}
	var models []providers.Model
	var names []string
	resident := 0
	for i := range all {
		names = append(names, all[i].Name)
		if !backend.Serves(all[i].Name) {
			continue
		}
		models = append(models, all[i])
		k.out.Models = append(k.out.Models, shownModel(&all[i], k.b.Slots))
		if all[i].State == schemas.Resident {
			resident++
		}
	}
	switch {
	case len(all) == 0:
		k.add(stepModels, resultFailed, causeNoModels, "the server has none")
	case len(models) == 0:
		k.add(stepModels, resultFailed, causeNoMatch,
			fmt.Sprintf("none of the %s is named by %s", count(len(all), "model"), strings.Join(k.b.Models, ", ")), nearestOf(k.b.Models, names)...)
	default:
		text := count(len(models), "model")
		if len(models) < len(all) {
			text += fmt.Sprintf(" of the %d that the server lists", len(all))
		}
		if !k.scene.hosted {
			text += fmt.Sprintf(", %d loaded", resident)
		}
		k.add(stepModels, resultOK, "", text)
		k.limits(models)
	}
	return models, nil
}

// listFailed notes why there is no list.
func (k *inspection) listFailed(ctx context.Context, err error) {
	c, r := causeOf(err), resultFailed
	var about []string
	switch c { //nolint:exhaustive // the others are what they are
	case causeModelNotFound, causeUnsupported: // a path, for no model was named
		c = causeWrongPath
		if better := k.betterURL(ctx); better != "" {
			about = []string{better}
		}
	case causeLoading:
		r = resultWarning
	case causeKeyRefused, causeKeyForbidden:
		about = k.b.KeysEnv
	}
	k.add(stepModels, r, c, saying(err, k.b), about...)
}

// limits warns of models that will not do much.
func (k *inspection) limits(models []providers.Model) {
	var small, sizes, slots []string
	for i := range models {
		m := &models[i]
		if m.Context > 0 && m.Context < smallContext && generates(m) {
			small = append(small, m.Name)
			sizes = append(sizes, fmt.Sprintf("%s (%d)", m.Name, m.Context))
		}
		if m.Slots == 0 && k.b.Slots == 0 && m.State != schemas.Remote {
			slots = append(slots, m.Name)
		}
	}
	if len(small) > 0 {
		k.add(stepModels, resultWarning, causeSmallContext, "a small context, in tokens: "+strings.Join(sizes, ", "), small...)
	}
	if len(slots) > 0 && k.b.Kind == providers.KindOllama {
		k.add(stepModels, resultOK, causeSlotsUnknown, "how many jobs a model runs at once is not told: 1 is assumed")
	}
}

// busy asks how busy a model is that is loaded.
func (k *inspection) busy(ctx context.Context, p providers.Provider, models []providers.Model) {
	reporter, ok := p.(providers.PressureReporter)
	i := slices.IndexFunc(models, func(m providers.Model) bool { return m.State == schemas.Resident })
	switch {
	case !ok:
		k.add(stepPressure, resultSkipped, "", "this kind of server does not tell how busy it is")
		return
	case i < 0:
		k.add(stepPressure, resultSkipped, "", "no model is loaded")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	found, err := reporter.Pressure(ctx, models[i].Name)
	if err != nil {
		c := causeOf(err)
		if c == causeUnsupported || c == causeModelNotFound { // a path that is not there
			c = causeSlotsOff
		}
		k.add(stepPressure, resultWarning, c, saying(err, k.b))
		return
	}
	k.out.Pressure = shownPressure(models[i].Name, found)
	k.add(stepPressure, resultOK, "", k.out.Pressure.text())
	if found.Waiting < 0 && k.b.Kind == providers.KindLlamaCpp {
		k.add(stepPressure, resultWarning, causeMetricsOff, "how many requests wait is not told")
	}
}

// keys looks at the keys. listed is how the list of models came out with them.
func (k *inspection) keys(ctx context.Context, listed error) {
	var set []string
	for _, name := range k.b.KeysEnv {
		if k.finder.getenv(name) == "" {
			k.add(stepKeys, resultWarning, causeKeyMissing, "$"+name+" is not set", name)
			continue
		}
		set = append(set, name)
	}
	refused := causeOf(listed)
	if len(set) == 0 && len(k.b.KeysEnv) > 0 && providers.Hosted(k.b.Kind) {
		k.out.Findings[len(k.out.Findings)-1].Result = resultFailed
		return
	}
	var good []string
	for _, name := range set {
		if len(set) > 1 { // which of them is it
			refused = k.tryKey(ctx, name)
		}
		if refused == causeKeyRefused || refused == causeKeyForbidden {
			k.add(stepKeys, resultWarning, refused, "the server turned down the key in $"+name, name)
			continue
		}
		good = append(good, name)
	}
	switch {
	case len(good) > 0:
		k.add(stepKeys, resultOK, "", "set: $"+strings.Join(good, ", $"))
	case len(k.b.KeysEnv) > 0 || listed != nil:
	case k.scene.hosted:
		k.add(stepKeys, resultSkipped, "", "keys_env names none")
	default:
		k.add(stepKeys, resultOK, "", "none is needed")
	}
}

// tryKey asks for the list of models with one of the keys.
func (k *inspection) tryKey(ctx context.Context, name string) cause {
	b := k.b
	b.KeysEnv = []string{name}
	backend, err := k.finder.backend(b)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	_, err = backend.Provider.Models(ctx)
	return causeOf(err)
}

// saying returns what a provider's error says, without the backend's name.
func saying(err error, b Backend) string {
	var e *schemas.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) {
			return "no answer in time"
		}
		return err.Error()
	}
	return strings.TrimPrefix(strings.TrimPrefix(e.Message, b.Name+": "), b.Kind+": ")
}
