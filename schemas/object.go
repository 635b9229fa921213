package schemas

import (
	"encoding/base64"
	"strings"
)

// BucketBodies is the object store of NATS for bodies that are too large for a
// message. A job with HeaderBody has its body there.
const BucketBodies = "VJ_BODIES"

// MaxBody is the largest body that a node takes from there unless it is told
// otherwise: it has it in memory.
const MaxBody = 64 * MiB

// ObjectName returns the name of an object of a tenant. token is one of ValidToken
// that no other job uses and nobody guesses: whoever knows the name of an object, and
// may write to the bucket, can replace it.
func ObjectName(tenant, token string) string { return tenant + "." + token }

// checkObject reports why a job of tenant may not have its body in the object of that
// name: a node reads it with its own rights, and deletes it at the job's end.
func checkObject(tenant, name string) error {
	token, ok := strings.CutPrefix(name, tenant+".")
	if !ok || !ValidToken(token) {
		return Errorf(Refused, "%s %q is no object of the tenant: it may only be %s. and 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'",
			HeaderBody, truncate(name), tenant)
	}
	return nil
}

// ObjectChunks is where the content of an object is stored. id is the object's nuid.
func ObjectChunks(id string) string { return "$O." + BucketBodies + ".C." + id }

// ObjectMeta is where an object is described.
func ObjectMeta(name string) string {
	return "$O." + BucketBodies + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}
