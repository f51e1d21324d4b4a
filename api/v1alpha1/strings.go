package v1alpha1

// CIDR is a network, "10.0.0.0/8" or "2001:db8::/32", without host bits. The
// format cidr of OpenAPI lets host bits, leading zeros and IPv4-mapped networks
// through; isCIDR reads as this program does. In a list, two CIDRs are compared at a
// cost that API servers before 1.34 can bound, too; by == they don't.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self).masked() in [cidr(self)]",messageExpression="isCIDR(self) ? '%s has host bits set; the network is %s'.format([strings.quote(self), string(cidr(self).masked())]) : isIP(self) ? '%s is an address; expected a prefix such as %s/%s'.format([strings.quote(self), self, ip(self).family() == 4 ? '32' : '128']) : self.matches('^::[fF]{4}:[0-9.:a-fA-F]+/[0-9]+$') ? '%s is IPv4 written as IPv6; expected it as IPv4, such as 10.0.0.0/8'.format([strings.quote(self)]) : self.contains('/') && isIP(self.substring(0, self.indexOf('/'))) ? '%s has a wrong prefix length; expected /0 to /%s'.format([strings.quote(self), self.contains(':') ? '128' : '32']) : '%s is not a CIDR; expected one such as 10.0.0.0/8 or 2001:db8::/32'.format([strings.quote(self)])"
type CIDR string

// ServiceName is NAMESPACE/NAME of a Service.
//
// +kubebuilder:validation:MaxLength=127
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
type ServiceName string

// InterfaceName is the name of an interface, or its beginning and + or *.
//
// +kubebuilder:validation:MaxLength=15
// +kubebuilder:validation:XValidation:rule="self.matches('^[!#-),.0-9;-\\\\[\\\\]-~+-]*[!#-),.0-9;-\\\\[\\\\]-~-][+*]?$') && !self.matches('^[.]{1,2}[+*]?$')",messageExpression="self in ['+', '*'] ? '%s matches every interface; leave outInterfaces out instead'.format([strings.quote(self)]) : '%s is not the name of an interface; expected one such as eth0, or its beginning such as eth+'.format([strings.quote(self)])"
type InterfaceName string

// AddressRange is an address of a host or a range of them, "192.0.2.16-192.0.2.23".
// CEL can't count addresses: of IPv4 the rules compare the last two numbers, of IPv6
// what follows the last colon, hexadecimal, which double reads with 0x before and an
// exponent behind.
//
// +kubebuilder:validation:MaxLength=79
// +kubebuilder:validation:XValidation:rule="isIP(self) ? (ip(self).isGlobalUnicast() || ip(self).isLinkLocalUnicast()) : self.contains('-') && isIP(self.substring(0, self.indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1)) && (ip(self.substring(0, self.indexOf('-'))).isGlobalUnicast() || ip(self.substring(0, self.indexOf('-'))).isLinkLocalUnicast()) && (ip(self.substring(self.indexOf('-') + 1)).isGlobalUnicast() || ip(self.substring(self.indexOf('-') + 1)).isLinkLocalUnicast())",messageExpression="isCIDR(self) ? '%s is a CIDR; expected an address, or a range FIRST-LAST'.format([strings.quote(self)]) : self.matches('^::[fF]{4}:[0-9.a-fA-F]+') ? '%s is IPv4 written as IPv6; expected it as IPv4'.format([strings.quote(self)]) : isIP(self) || self.contains('-') && isIP(self.substring(0, self.indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1)) ? '%s is an address that no packet comes from: unspecified, loopback, multicast or broadcast; expected that of a host'.format([strings.quote(self)]) : self.matches('^[0-9.]+-[0-9.]+$|^[0-9a-fA-F:.]+-[0-9a-fA-F:.]+$') ? '%s is not a range of addresses; expected one such as 192.0.2.16-192.0.2.23'.format([strings.quote(self)]) : '%s is not an address; expected one such as 192.0.2.7 or 2001:db8::7, or a range 192.0.2.16-192.0.2.23'.format([strings.quote(self)])"
// +kubebuilder:validation:XValidation:rule="self.contains(':') || !self.contains('-') || !isIP(self.substring(0, self.indexOf('-'))) || !isIP(self.substring(self.indexOf('-') + 1)) || cidr(self.substring(0, self.indexOf('-')) + '/16').containsIP(self.substring(self.indexOf('-') + 1)) && [(int(self.replace('-', '.').split('.')[6]) - int(self.replace('-', '.').split('.')[2])) * 256 + int(self.replace('-', '.').split('.')[7]) - int(self.replace('-', '.').split('.')[3])].all(n, 0 <= n && n < 1024)",messageExpression="'%s is not a range within one /16, of at most 1024 addresses, the lowest first; expected one such as 192.0.2.16-192.0.2.23'.format([strings.quote(self)])"
// +kubebuilder:validation:XValidation:rule="!self.contains(':') || !self.contains('-') || !isIP(self.substring(0, self.indexOf('-'))) || !isIP(self.substring(self.indexOf('-') + 1)) || !self.contains('.') && cidr(self.substring(0, self.indexOf('-')) + '/112').containsIP(self.substring(self.indexOf('-') + 1)) && [int(double('0x0' + self.substring(self.indexOf('-') + 1).substring(self.substring(self.indexOf('-') + 1).lastIndexOf(':') + 1) + 'p0')) - int(double('0x0' + self.substring(0, self.indexOf('-')).substring(self.substring(0, self.indexOf('-')).lastIndexOf(':') + 1) + 'p0'))].all(n, 0 <= n && n < 1024)",messageExpression="'%s is not a range within one /112, of at most 1024 addresses, the lowest first; expected one such as 2001:db8::10-2001:db8::17'.format([strings.quote(self)])"
type AddressRange string

// LabelSelector selects by labels: Kubernetes' own, with bounds.
//
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.matchLabels), has(self.matchExpressions)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type LabelSelector struct {
	// MatchLabels: each must be there, with this value.
	//
	// +optional
	// +nullable
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.indexOf('/') <= 253 && k.matches('^([a-z0-9]+((-+|[.])[a-z0-9]+)*/)?([^\\\\W_][-\\\\w.]{0,61})?[^\\\\W_]$'))",message="has a key that is not a label key; expected one such as app or example.com/app",messageExpression="'\"%s\" is not a label key; expected one such as app or example.com/app'.format([self.filter(k, !(k.indexOf('/') <= 253 && k.matches('^([a-z0-9]+((-+|[.])[a-z0-9]+)*/)?([^\\\\W_][-\\\\w.]{0,61})?[^\\\\W_]$')))[0]])"
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`
	// MatchExpressions must all hold.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	MatchExpressions []LabelRequirement `json:"matchExpressions,omitempty"`
}

// LabelRequirement asks for a label.
//
// +kubebuilder:validation:XValidation:rule="(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",messageExpression="self.operator in ['In', 'NotIn'] ? 'missing; operator ' + self.operator + ' needs values' : 'not expected with operator ' + self.operator",fieldPath=".values"
type LabelRequirement struct {
	// Key of the label.
	//
	// +required
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="self.indexOf('/') <= 253 && self.matches('^([a-z0-9]+((-+|[.])[a-z0-9]+)*/)?([^\\\\W_][-\\\\w.]{0,61})?[^\\\\W_]$')",messageExpression="'%s is not a label key; expected one such as app or example.com/app'.format([strings.quote(self)])"
	Key string `json:"key"`
	// Operator is In, NotIn, Exists or DoesNotExist.
	//
	// +required
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
	// +kubebuilder:validation:MaxLength=16
	Operator string `json:"operator"`
	// Values that In and NotIn compare with.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	Values []LabelValue `json:"values,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`
type LabelValue string
