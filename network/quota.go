package network

import (
	"iter"
	"maps"
)

// Quota is what a project may own where that is not the default: by the name of
// the resource ("network", "port"), -1 for any number.
type Quota struct {
	ProjectID string         `json:"project_id"`
	Limits    map[string]int `json:"limits"`
}

// ObjectKind implements Object.
func (*Quota) ObjectKind() Kind { return KindQuota }

// ObjectID implements Object.
func (q *Quota) ObjectID() string { return q.ProjectID }

// Quota returns the quota of a project, or nil where it has the default.
func (v *View) Quota(projectID string) *Quota { return byID[Quota](v, KindQuota, projectID) }

// Quotas are the quotas of all projects that have one.
func (v *View) Quotas() iter.Seq[*Quota] { return all[Quota](v, KindQuota) }

// SetQuota changes some limits of a project; the others stay as they are.
func (tx *Tx) SetQuota(projectID string, limits map[string]int) error {
	q := &Quota{ProjectID: projectID, Limits: map[string]int{}}
	old := tx.Quota(projectID)
	if old != nil {
		maps.Copy(q.Limits, old.Limits)
	}
	maps.Copy(q.Limits, limits)
	if len(q.Limits) == 0 || old != nil && maps.Equal(q.Limits, old.Limits) {
		return nil
	}
	return tx.put(q)
}

// DeleteQuota gives a project the default quota again.
func (tx *Tx) DeleteQuota(projectID string) error {
	if tx.Quota(projectID) == nil {
		return Errorf(NotFound, "TenantQuotaNotFound", "Quota for tenant %s could not be found.", projectID)
	}
	tx.remove(KindQuota, projectID)
	return nil
}
