package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/schemas"
)

// Versions of nats-server: the oldest with messages that expire by themselves, as stored
// results do, and the oldest that vramjet is tested with.
var (
	oldestServer = [2]int{2, 11}
	testedServer = [2]int{2, 15}
)

// serverVersion reads the first two numbers of a version.
func serverVersion(v string) (numbers [2]int, ok bool) {
	parts := strings.SplitN(v, ".", 3)
	if len(parts) < 3 {
		return numbers, false
	}
	for i := range numbers {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return numbers, false
		}
		numbers[i] = n
	}
	return numbers, true
}

func judgeNATS(f *facts) []remark {
	s := &f.server
	if s.rtt.err != nil {
		return []remark{checkNATS.fail("", "%s does not answer a ping: %s", s.url, oneLine(s.rtt.err.Error()))}
	}
	text := fmt.Sprintf("nats-server %s at %s answers in %s", s.version, s.url, short(s.rtt.got))
	v, ok := serverVersion(s.version)
	switch {
	case !ok:
		return []remark{checkNATS.warn("", "%s; its version is not one that is known", text)}
	case slices.Compare(v[:], oldestServer[:]) < 0:
		return []remark{checkNATS.fail("update nats-server to 2.15", "%s; results cannot expire one by one before 2.11", text)}
	case slices.Compare(v[:], testedServer[:]) < 0:
		return []remark{checkNATS.warn("update nats-server to 2.15", "%s; vramjet is tested with 2.15", text)}
	default:
		return []remark{checkNATS.ok("%s", text)}
	}
}

func judgeJetStream(f *facts) (all []remark) {
	const fix = "jetstream { store_dir: \"/var/lib/nats\" }   # in the server's configuration, or nats-server -js"
	switch err := f.account.err; {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return []remark{checkJetStream.fail(fix, "JetStream is off on this server")}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return []remark{checkJetStream.fail("accounts { NAME: { jetstream: enabled } }   # in the server's configuration", "JetStream is off for this account")}
	case err != nil:
		return checkJetStream.notMade(err)
	}
	i := f.account.got
	if need := len(broker.StreamNames()); i.Limits.MaxStreams > 0 && i.Limits.MaxStreams < need {
		all = append(all, checkJetStream.fail("", "the account may have %s, and vramjet needs %d", count(i.Limits.MaxStreams, "stream"), need))
	}
	if i.Limits.MaxBytesRequired {
		all = append(all, checkJetStream.fail("max_bytes_required: false   # in the account's limits", "the account takes only streams with a limit of bytes, and most of ours have none"))
	}
	if most := i.Limits.MaxConsumers; most > 0 && most < manyConsumers {
		all = append(all, checkJetStream.warn("", "the account may have %s: as many flows at most are served at a time, less what reads results", count(most, "consumer")))
	}
	if most := i.Limits.MaxStore; most > 0 {
		all = append(all, filling(checkJetStream, "the account's store", i.Store, uint64(most), "")...)
	}
	if len(all) == 0 {
		all = append(all, checkJetStream.ok("on, API level %d; %s in %s", i.API.Level, schemas.Bytes(i.Store), count(i.Streams, "stream")))
	}
	return all
}

// manyConsumers is how many consumers of the queue a dispatcher keeps at most.
const manyConsumers = 256

// filling remarks on what is nearly used up, or is.
func filling(c check, what string, used, most uint64, fix string) []remark {
	switch {
	case used >= most:
		return []remark{c.fail(fix, "%s is full: %d of %d", what, used, most)}
	case used >= most-most/5:
		return []remark{c.warn(fix, "%s is nearly full: %d of %d", what, used, most)}
	default:
		return nil
	}
}

func judgeStreams(f *facts) (all []remark) {
	var good, missing []string
	for i := range f.streams {
		s := &f.streams[i]
		switch {
		case errors.Is(s.info.err, jetstream.ErrStreamNotFound):
			missing = append(missing, s.name)
			continue
		case !s.there():
			all = append(all, checkStreams.warn("", "%s: not checked: %s", s.name, oneLine(s.info.err.Error())))
			continue
		}
		way, differs := broker.Differences(s.info.got.Config, broker.StreamsConfig{})
		switch {
		case way != "":
			all = append(all, checkStreams.fail("move what it holds, then: nats stream rm "+s.name, "%s is not ours: %s", s.name, way))
		case len(differs) > 0:
			all = append(all, checkStreams.warn("restart a dispatcher of version "+f.version+": it brings the streams up to date", "%s: %s", s.name, strings.Join(differs, "; ")))
		default:
			good = append(good, s.name)
		}
	}
	if len(missing) > 0 {
		all = append(all, checkStreams.fail("vramjet dispatcher   # makes them when it starts", "not there: %s", strings.Join(missing, ", ")))
	}
	if len(good) > 0 {
		all = append(all, checkStreams.ok("as wanted: %s", strings.Join(good, ", ")))
	}
	return all
}

func judgeReplicas(f *facts) (all []remark) {
	copies := map[int][]string{}
	for i := range f.streams {
		if s := &f.streams[i]; s.there() {
			copies[s.info.got.Config.Replicas] = append(copies[s.info.got.Config.Replicas], s.name)
			all = append(all, peers(s)...)
		}
	}
	if len(copies) == 0 {
		return checkReplicas.notMade(errors.New("no stream could be looked at"))
	}
	most, fewest := 0, 0
	for n := range copies {
		most = max(most, n)
		if fewest == 0 || n < fewest {
			fewest = n
		}
	}
	fix := fmt.Sprintf("vramjet dispatcher --replicas %d   # for all dispatchers", max(3, most))
	switch {
	case fewest < most:
		all = append(all, checkReplicas.warn(fix, "there are %d of some streams, and %d of %s", most, fewest, strings.Join(copies[fewest], ", ")))
	case most == 1 && f.server.cluster != "" && f.server.known >= 3:
		all = append(all, checkReplicas.warn(fix, "one of each stream, on a cluster of %d servers: what is on a server that fails is gone until it is back", f.server.known))
	case len(all) == 0 && most == 1:
		all = append(all, checkReplicas.ok("one of each stream"))
	case len(all) == 0:
		all = append(all, checkReplicas.ok("%d of each stream, all up to date", most))
	}
	return all
}

// lagging is how far a replica may be behind before it is told.
const lagging = 1000

// peers remarks on the replicas of a stream.
func peers(s *streamFacts) (all []remark) {
	c := s.info.got.Cluster
	if c == nil || s.info.got.Config.Replicas == 1 {
		return nil
	}
	const fix = "look at that server's log; nats server report jetstream, by a user of the system account"
	if c.Leader == "" {
		all = append(all, checkReplicas.fail(fix, "%s has no leader: nothing is taken or delivered", s.name))
	}
	for _, p := range c.Replicas {
		switch {
		case p.Offline:
			all = append(all, checkReplicas.warn(fix, "%s: the replica on %s is offline", s.name, p.Name))
		case !p.Current && p.Lag > lagging:
			all = append(all, checkReplicas.warn(fix, "%s: the replica on %s is %d operations behind", s.name, p.Name, p.Lag))
		case !p.Current:
			all = append(all, checkReplicas.warn(fix, "%s: the replica on %s is not up to date; last seen %s", s.name, p.Name, ago(p.Active)))
		}
	}
	if have := len(c.Replicas) + 1; have < s.info.got.Config.Replicas {
		all = append(all, checkReplicas.warn(fix, "%s: there are %d of %d replicas", s.name, have, s.info.got.Config.Replicas))
	}
	return all
}

func judgeSync(f *facts) (all []remark) {
	switch {
	case len(f.monitors) > 0:
	case f.server.name == embedded.NameSynced:
		return []remark{checkSync.ok("the embedded server of vramjet up: on the disk before it is acknowledged")}
	case f.server.name == embedded.NameUnsynced:
		return []remark{checkSync.warn("vramjet up --durability always", "the embedded server of vramjet up: what it acknowledged within 2 minutes is lost if its machine loses power")}
	default:
		return []remark{checkSync.warn("vramjet doctor --monitor http://SERVER:8222   # for each server, with http: 127.0.0.1:8222 in its configuration",
			"not checked: NATS does not tell when it writes to the disk, only its monitoring over HTTP, and none was found")}
	}
	var always []string
	for i := range f.monitors {
		m := &f.monitors[i]
		c := &m.vars.JetStream.Config
		switch {
		case m.err != nil:
			all = append(all, checkSync.warn("", "not checked: %s", oneLine(m.err.Error())))
			continue
		case m.health != "":
			all = append(all, checkSync.fail("start "+m.vars.Name+" again, once there is room on its disk", "%s is not well: %s", m.vars.Name, oneLine(m.health)))
		}
		const fix = "jetstream { sync_interval: always }   # in the server's configuration"
		text := fmt.Sprintf("%s writes to the disk every %s: what it acknowledged in between is lost if its machine loses power", m.vars.Name, c.SyncInterval)
		switch {
		case c.SyncAlways:
			always = append(always, m.vars.Name)
		case f.copies() > 1:
			all = append(all, checkSync.warn(fix, "%s, and with it that of most replicas", text))
		default:
			all = append(all, checkSync.fail(fix, "%s", text))
		}
		all = append(all, slowReaders(m)...)
	}
	if len(always) > 0 {
		all = append(all, checkSync.ok("on the disk before it is acknowledged: %s", strings.Join(always, ", ")))
	}
	if more := f.server.known - len(f.monitors); f.server.cluster != "" && more > 0 {
		all = append(all, checkSync.warn("vramjet doctor --monitor URL   # once for each server", "not checked: %s more of the cluster", count(more, "server")))
	}
	return all
}

// copies is how many replicas the queue has.
func (f *facts) copies() int {
	if s := f.stream(broker.StreamJobs); s.there() {
		return s.info.got.Config.Replicas
	}
	return 1
}

// slowReaders remarks on what a reader that takes nothing does to others.
func slowReaders(m *monitored) []remark {
	const most = 5 * time.Second
	if m.vars.WriteDeadline <= most {
		return nil
	}
	return []remark{checkSync.warn(`write_deadline: "2s", no_fast_producer_stall: true   # in the server's configuration`,
		"%s lets a reader that takes nothing slow down a node's other streams for %s", m.vars.Name, m.vars.WriteDeadline)}
}

// wantedPayload is how large a message should be able to be.
const wantedPayload = 8 * schemas.MiB

func judgePayload(f *facts) []remark {
	have := schemas.Bytes(max(0, f.server.maxPayload))
	if have < wantedPayload {
		return []remark{checkPayload.warn("max_payload: 8MB   # in the server's configuration",
			"a message may have %s: a larger answer is refused, and a larger request takes the way through %s", have, schemas.BucketBodies)}
	}
	return []remark{checkPayload.ok("a message may have %s", have)}
}

// mostSkew is how far a clock may be off. Deadlines and delays are that far off, too.
const mostSkew = time.Second

// A clockReading is when something happened by another's clock, and between which times by
// ours.
type clockReading struct {
	of    string
	at    time.Time
	asked between
}

// off returns how far the other clock is ahead of ours at least; less than 0: behind.
func (c *clockReading) off() time.Duration {
	switch {
	case c.at.After(c.asked.to):
		return c.at.Sub(c.asked.to)
	case c.at.Before(c.asked.from):
		return c.at.Sub(c.asked.from)
	default:
		return 0
	}
}

// clocks returns the readings there are: of the servers that lead streams, and of nodes.
func (f *facts) clocks() (all []clockReading) {
	seen := map[string]bool{}
	for i := range f.streams {
		s := &f.streams[i]
		if !s.there() || s.info.got.TimeStamp.IsZero() {
			continue
		}
		name := f.server.url
		if c := s.info.got.Cluster; c != nil && c.Leader != "" {
			name = c.Leader
		}
		if !seen[name] {
			seen[name] = true
			all = append(all, clockReading{"the server " + name, s.info.got.TimeStamp, s.asked})
		}
	}
	if f.nodes.err == nil {
		for i := range f.nodes.got.states {
			n := &f.nodes.got.states[i]
			all = append(all, clockReading{"the node " + n.Node, n.At, f.nodes.got.asked})
		}
	}
	return all
}

func judgeClocks(f *facts) (all []remark) {
	clocks := f.clocks()
	if len(clocks) == 0 {
		return checkClocks.notMade(errors.New("no server told its time, and no node"))
	}
	const fix = "run a time service on it, such as chrony or systemd-timesyncd"
	for i := range clocks {
		off := clocks[i].off()
		if off.Abs() <= mostSkew {
			continue
		}
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		all = append(all, checkClocks.warn(fix, "the clock of %s is %s %s this machine's: deadlines and delays are off by as much", clocks[i].of, off.Abs().Round(time.Second), way))
	}
	if len(all) > 1 && len(all) == len(clocks) {
		return []remark{checkClocks.warn(fix, "all %d clocks of servers and nodes differ from this machine's by %s or more: it is probably this one that is off", len(clocks), mostSkew)}
	}
	if len(all) == 0 {
		return []remark{checkClocks.ok("%s of servers and nodes within %s of this machine's", count(len(clocks), "clock"), mostSkew)}
	}
	return all
}

func judgePermissions(f *facts) (all []remark) {
	for _, e := range f.refused {
		roles := broker.WhoMayPublish(e.subject, f.tenant)
		if e.do == "subscribe" {
			roles = broker.WhoMaySubscribe(e.subject, f.tenant)
		}
		text := "no role may"
		if len(roles) > 0 {
			text = "a user of the role " + strings.ReplaceAll(join(roles), ", ", " or ") + " may"
		}
		fix := ""
		if strings.HasPrefix(e.subject, "_INBOX") {
			return []remark{checkPermissions.fail("nats: {inbox_prefix: …}   # in the configuration; vramjet auth ls shows the user's", "%s, and so hears no answer", e)}
		}
		if slices.Contains(roles, broker.RoleOperator) {
			fix = "vramjet auth add operator NAME, then: vramjet doctor --context vramjet-auth/operator-NAME.json"
		}
		all = append(all, checkPermissions.warn(fix, "%s: %s", e, text))
	}
	if len(all) == 0 {
		return []remark{checkPermissions.ok("all that was asked is permitted")}
	}
	for i := range all[:len(all)-1] { // it is the same for all, so the last has it
		all[i].Fix = ""
	}
	return all
}
