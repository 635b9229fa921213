package broker

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// AckWait is how long a delivered job belongs to whom it was delivered to, from
// the delivery or the last extension on. It is longer than a cluster takes to
// elect a leader, during which no extension arrives.
const AckWait = 30 * time.Second

// MetadataSubject is the key of a consumer's metadata that holds the subject it
// is for, since its name is only a hash. Compare before you change a consumer.
const MetadataSubject = "subject"

const (
	inactiveThreshold = 10 * time.Minute
	maxWaiting        = 512
)

// nameEncoding is for names that become directories, on file systems that may
// not tell upper case from lower case.
const nameAlphabet = "abcdefghijklmnopqrstuvwxyz234567"

// ConsumerName returns the name of the consumer of a flow, told by its subject:
// the class and a hash. Subjects that are no flow's have the class "other".
func ConsumerName(subject string) string {
	f, _ := schemas.ParseJobSubject(subject) // the class is "" where the subject is no flow's
	hash := sha256.Sum256([]byte(subject))
	enc := base32.NewEncoding(nameAlphabet).WithPadding(base32.NoPadding)
	var b strings.Builder
	b.WriteString(cmp.Or(string(f.Class), "other"))
	b.WriteByte('-')
	b.WriteString(enc.EncodeToString(hash[:15]))
	return b.String()
}

// ConsumerConfig returns the durable pull consumer of a flow, told by its
// subject. maxAckPending is how many of its jobs may be delivered and not
// settled at once, over all dispatchers; 0 is the server's default, 1000.
// replicas is how many copies there are of its state; 0: as many as of the
// stream.
//
// The server removes the consumer 10 minutes after nobody asked it for jobs any
// more and the last lease ran out. No job is lost by that.
func ConsumerConfig(subject string, maxAckPending, replicas int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:           ConsumerName(subject),
		FilterSubject:     subject,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           AckWait,
		MaxDeliver:        -1, // attempts are counted by whoever delivers: see the dead letters
		MaxAckPending:     maxAckPending,
		MaxWaiting:        maxWaiting,
		InactiveThreshold: inactiveThreshold,
		Replicas:          replicas,
		Metadata:          map[string]string{MetadataSubject: subject},
	}
}
