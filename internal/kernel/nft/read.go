package nft

import "github.com/unmasq/unmasq/internal/plan"

// Standing is what stands in the kernel, read without writing.
type Standing struct {
	State
	// Process is the owner where there is one.
	Process Process
	Layout  string
	// Handover: the helper table stands too; an exchange was cut short.
	Handover bool
	Counts   map[string]Count
	Comments []Comment
}

// Read says what stands in this network namespace. It needs CAP_NET_ADMIN.
func Read() (Standing, error) {
	c, err := dial()
	if err != nil {
		return Standing{}, err
	}
	defer c.close()
	var s Standing
	if s.State, err = c.state(plan.TableName); err != nil {
		return s, err
	}
	helper, err := c.state(plan.HandoverName)
	if err != nil || !s.Exists {
		s.Handover = helper.Exists
		return s, err
	}
	s.Handover = helper.Exists
	if s.Owned() {
		s.Process = ownerOf(s.Owner)
	}
	have, err := c.contents(plan.TableName)
	if err != nil {
		return s, err
	}
	s.Layout = have.layout()
	if s.Counts, err = c.counts(plan.TableName); err != nil {
		return s, err
	}
	s.Comments, err = c.comments(plan.TableName)
	return s, err
}

// Counts reads the named counters of unmasq's table.
func Counts() (map[string]Count, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.counts(plan.TableName)
}
