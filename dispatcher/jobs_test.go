package dispatcher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

func ids(list *schemas.JobList) string {
	var ids []string
	for _, j := range list.Jobs {
		ids = append(ids, j.Job+":"+string(j.State))
	}
	return strings.Join(ids, " ")
}

func TestListJobs(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	n := s.node("a", nil, "m")
	for i := range 5 {
		s.submit("m", fmt.Sprint("j", i))
	}
	first, second := n.next(), n.next()
	s.publish("vj.v1.jobs.default.batch.other", "b")
	s.publish("vj.v1.jobs.acme.batch.other", "foreign")
	for _, c := range []struct {
		req  schemas.JobsRequest
		want string
	}{
		{schemas.JobsRequest{State: schemas.JobRunning}, "j1:running j0:running"},
		{schemas.JobsRequest{State: schemas.JobQueued}, "b:queued j4:queued j3:queued j2:queued"},
		{schemas.JobsRequest{}, "j1:running j0:running b:queued j4:queued j3:queued j2:queued"},
		{schemas.JobsRequest{Limit: 3}, "j1:running j0:running b:queued"},
		{schemas.JobsRequest{Filter: schemas.Filter{Class: schemas.Batch}}, "b:queued"},
		{schemas.JobsRequest{Filter: schemas.Filter{Model: "o*"}}, "b:queued"},
		{schemas.JobsRequest{Since: time.Now().Add(time.Hour)}, ""},
	} {
		var got schemas.JobList
		if s.asks("jobs", c.req, &got); ids(&got) != c.want || (got.Next != 0) != (c.req.Limit > 0) {
			t.Errorf("%+v: got %s, next %d; want %s", c.req, ids(&got), got.Next, c.want)
		}
	}
	var bad schemas.APIError
	if s.asks("jobs", schemas.JobsRequest{Limit: -1}, &bad); bad.Error == nil || bad.Error.Code != schemas.InvalidRequest {
		t.Errorf("a limit below 0: %v", bad.Error)
	}
	n.finish(first)
	n.finish(second)
}

// TestListLongQueue: windows of the queue are read until there are enough, whatever
// lies between.
func TestListLongQueue(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	s.submit("rare", "old")
	for i := range 1200 {
		if _, err := s.js.PublishAsync("vj.v1.jobs.default.normal.m", []byte(`{"messages":[]}`)); err != nil {
			t.Fatal(i, err)
		}
	}
	<-s.js.PublishAsyncComplete()
	var got, rest schemas.JobList
	if s.asks("jobs", schemas.JobsRequest{Filter: schemas.Filter{Model: "rare"}}, &got); ids(&got) != "old:queued" {
		t.Errorf("the oldest job: %s", ids(&got))
	}
	s.asks("jobs", schemas.JobsRequest{Limit: 1000}, &got)
	if len(got.Jobs) != 1000 || got.Jobs[0].Job != "1201" || got.Jobs[999].Job != "202" {
		t.Errorf("got %d jobs, from %s to %s", len(got.Jobs), got.Jobs[0].Job, got.Jobs[len(got.Jobs)-1].Job)
	}
	s.asks("jobs", schemas.JobsRequest{Limit: 1000, Before: got.Next}, &rest)
	if len(rest.Jobs) != 201 || rest.Jobs[0].Job != "201" || rest.Jobs[200].Job != "old" || rest.Next != 0 {
		t.Errorf("the rest are %d jobs, next %d", len(rest.Jobs), rest.Next)
	}
}

func TestShow(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	n := s.node("a", nil, "m")
	s.submit("m", "runs", schemas.HeaderTimeout, "9s")
	r := n.next()
	s.submit("other", "waits", schemas.HeaderSession, "s1")

	var d schemas.JobDetails
	s.ask("show", "runs", &d)
	if d.State != schemas.JobRunning || d.Node != "a" || d.Class != schemas.Normal || d.Headers[schemas.HeaderTimeout] != "9s" || d.Submitted.IsZero() || d.Body != nil {
		t.Errorf("the running job: %+v", d)
	}
	d = schemas.JobDetails{}
	s.asks("show", schemas.JobRequest{Job: "waits", Body: true}, &d)
	if d.State != schemas.JobQueued || d.Model != "other" || d.Headers[schemas.HeaderSession] != "s1" || len(d.Headers) != 1 || !strings.Contains(string(d.Body), `"content":"hi"`) {
		t.Errorf("the waiting job: %+v", d)
	}
	var info schemas.JobInfo
	s.ask("cancel", "waits", &info)
	d = schemas.JobDetails{}
	s.ask("show", "waits", &d)
	if d.State != schemas.JobState(schemas.StatusCancelled) || d.Failure == nil || d.Failure.Code != schemas.Cancelled || d.Model != "other" || d.Class != schemas.Normal || d.Ended.IsZero() || d.Run == nil {
		t.Errorf("the cancelled job: %+v", d)
	}
	var unknown schemas.APIError
	if s.ask("show", "nobody", &unknown); unknown.Error == nil || unknown.Error.Code != schemas.JobNotFound {
		t.Errorf("no job: %v", unknown.Error)
	}
	n.finish(r)
}

// TestLargeJobsAreFound: a page of the queue ends where it has so many bytes, and the
// next goes on there.
func TestLargeJobsAreFound(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	body := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("x", 1<<20) + `"}]}`)
	for i := range 10 {
		m := nats.NewMsg("vj.v1.jobs.default.normal.m")
		m.Header.Set(schemas.HeaderMsgID, fmt.Sprint("j", i))
		m.Data = body
		if _, err := s.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	var info schemas.JobInfo
	if s.ask("status", "j9", &info); info.State != schemas.JobQueued {
		t.Errorf("the last of large jobs: %+v", info)
	}
	var list schemas.JobList
	if s.asks("jobs", schemas.JobsRequest{}, &list); len(list.Jobs) != 10 {
		t.Errorf("%d of 10 large jobs are listed", len(list.Jobs))
	}
}

// TestDelayedJobsAreListed: beside those that wait for their turn, and shown as they
// were submitted.
func TestDelayedJobsAreListed(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	due := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for _, id := range []string{"d1", "d2"} {
		s.publish(laterFlow, id, schemas.HeaderAt, due.Format(time.RFC3339), schemas.HeaderSession, "s1")
	}
	s.submit("m", "waits")
	for state, want := range map[schemas.JobState]string{"": "waits:queued", schemas.JobDelayed: "d2:delayed d1:delayed", schemas.JobRunning: ""} {
		var got schemas.JobList
		if s.asks("jobs", schemas.JobsRequest{State: state}, &got); ids(&got) != want {
			t.Errorf("%q: got %s, want %s", state, ids(&got), want)
		}
	}
	var d schemas.JobDetails
	s.asks("show", schemas.JobRequest{Job: "d1", Body: true}, &d)
	if d.State != schemas.JobDelayed || !d.Due.Equal(due) || d.Class != schemas.Normal || d.Headers[schemas.HeaderSession] != "s1" || d.Headers[schemas.HeaderLater] != "" || d.Body == nil {
		t.Errorf("a delayed job: %+v", d)
	}
	if got, _ := s.purge(schemas.PurgeRequest{}); got.Waiting != 1 {
		t.Errorf("purged %+v, want the one that waits", got)
	}
	if s.ask("show", "d2", &d); d.State != schemas.JobDelayed {
		t.Errorf("after the purge: %+v", d)
	}
}
