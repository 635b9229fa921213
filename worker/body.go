package worker

import (
	"context"
	"errors"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// deleteTimeout bounds how long a body is tried to be deleted.
const deleteTimeout = 5 * time.Second

// fetchBody gets the job's body, where it is an object, and reads it. That is done
// with the go, since an offer is to be answered at once and what nobody may run need
// not be read, and by the attempt's goroutine, so that it keeps nobody else waiting.
func (a *attempt) fetchBody(ctx context.Context) error {
	job := a.offer.Job
	if job.Object == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.w.pace.fetch)
	defer cancel()
	body, err := broker.FetchBody(ctx, a.w.nc, job.Object, a.w.cfg.MaxBody)
	var never *schemas.Error
	switch {
	case errors.As(err, &never):
		return never
	case err != nil:
		return schemas.Errorf(schemas.Unreachable, "the job's body cannot be read for now: %s", err)
	default:
		return job.ReadBody(body)
	}
}

// deleteBody deletes the body of a job that is over, where it is an object. One that
// stays is deleted by its age.
func (a *attempt) deleteBody(life context.Context) {
	job := a.offer.Job
	if job.Object == "" {
		return
	}
	ctx, cancel := context.WithTimeout(life, deleteTimeout)
	defer cancel()
	if err := broker.DeleteBody(ctx, a.w.nc, job.Object); err != nil {
		a.w.cfg.Logger.Warn("a body stays until it is old", "job", job.ID, "err", err)
	}
}
