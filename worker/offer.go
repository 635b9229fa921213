package worker

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// An offer is one that arrived.
type offer struct {
	*schemas.Offer
	header   nats.Header
	received time.Time
	reply    string // where the answer goes
}

// readOffer reads an offer that was received just now.
func readOffer(h nats.Header, body []byte, reply string) (*offer, error) {
	o, err := schemas.ReadOffer(h, body)
	if err != nil {
		return nil, err
	}
	return &offer{Offer: o, header: h, received: time.Now(), reply: reply}, nil
}

func (o *offer) key() taskKey {
	return taskKey{tenant: o.Job.Flow.Tenant, job: o.Job.ID, attempt: o.Attempt}
}
